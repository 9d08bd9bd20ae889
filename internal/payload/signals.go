package payload

import (
	"strings"

	"github.com/leat-io/leat/internal/record"
)

// signalsDecoder is the parser json_signals: documents that group signals. Walking down from the root,
//
//   - an object with the value member is a sample. Its name is the path so far, and its name member behind that;
//   - an object without it is a group: its name member, if any, and the names of its members extend the path;
//   - an array stands for its elements: objects are samples or groups under the same path;
//   - everything else is a value, named by its path.
//
// Each object may hold a time, which counts for what is in it.
type signalsDecoder struct {
	sink     *sink
	time     timeReader
	walk     walker
	root     []string
	name     []string // names of the name member, the first that is there counts
	value    string
	drop     bool
	unescape []byte
}

func newSignalsDecoder(c Config, t timeReader, s *sink) *signalsDecoder {
	d := &signalsDecoder{sink: s, time: t, value: c.Value, drop: c.Extra == "drop", name: []string{"name", "signal"}}
	d.walk.sink, d.walk.arraysAsJSON = s, c.Arrays == "json"
	if c.Root != "" {
		d.root = strings.Split(c.Root, ".")
	}
	if c.Name != "" {
		d.name = []string{c.Name}
	}
	return d
}

// Decode implements Decoder.
func (d *signalsDecoder) Decode(rec *record.Record, dst []Row) ([]Row, error) {
	d.sink.begin(rec, dst)
	err := d.decode(rec.Payload)
	rows, none := d.sink.end()
	if err != nil {
		return rows, err
	}
	return rows, none
}

func (d *signalsDecoder) decode(payload []byte) error {
	doc := trim(payload)
	if len(doc) == 0 {
		return reject("empty payload")
	}
	if doc[0] != '{' && doc[0] != '[' {
		return reject("not a JSON object or array")
	}
	t := &d.walk.tape
	if err := t.parse(doc); err != nil {
		return err
	}
	if doc[0] == '{' {
		return d.document(0)
	}
	for i := 1; i < len(t.nodes); i = int(t.nodes[i].next) {
		if t.nodes[i].kind != '{' {
			return reject("array of something else than objects")
		}
		if err := d.document(i); err != nil {
			return err
		}
	}
	return nil
}

// document finds the root in the object at index i, collecting the times of the objects on the way, and adds what is
// there.
func (d *signalsDecoder) document(i int) error {
	at, t := event{node: -1}, &d.walk.tape
	for depth := range d.root {
		var err error
		if at, err = d.time.read(t, i, at); err != nil {
			return err
		}
		if i = find(t, i, d.root[depth:depth+1], &d.unescape); i < 0 {
			return reject("no member %s", strings.Join(d.root, "."))
		}
	}
	d.walk.path = d.walk.path[:0]
	return d.node(i, 0, at)
}

// node adds the node at index i, named by the first pathLen bytes of the walker's path.
func (d *signalsDecoder) node(i, pathLen int, at event) error {
	w := &d.walk
	switch n := &w.tape.nodes[i]; {
	case n.kind == '{':
		return d.object(i, pathLen, at)
	case n.kind == '[' && !w.arraysAsJSON:
		return d.array(i, pathLen, at)
	}
	if pathLen == 0 {
		return reject("value without a name")
	}
	d.sink.setTime(at.ns, at.has)
	return w.node(i, w.path[:pathLen])
}

// array adds the elements of an array: objects under the array's own name, others under their index.
func (d *signalsDecoder) array(i, pathLen int, at event) error {
	w, index := &d.walk, 0
	for c := i + 1; c < int(w.tape.nodes[i].next); c = int(w.tape.nodes[c].next) {
		n, length := &w.tape.nodes[c], pathLen
		if n.kind != '{' {
			name, err := w.name(n, false, index, pathLen)
			if err != nil {
				return err
			}
			length = len(name)
		}
		index++
		if err := d.node(c, length, at); err != nil {
			return err
		}
	}
	return nil
}

// object adds a sample or a group.
func (d *signalsDecoder) object(i, pathLen int, at event) error {
	w := &d.walk
	at, err := d.time.read(&w.tape, i, at)
	if err != nil {
		return err
	}
	name, pathLen, err := d.extend(i, pathLen)
	if err != nil {
		return err
	}
	value := member(&w.tape, i, d.value, &d.unescape)
	if value >= 0 {
		if pathLen == 0 {
			return reject("sample without a name")
		}
		if err := d.sample(value, pathLen, at); err != nil || d.drop {
			return err
		}
	}
	for c := i + 1; c < int(w.tape.nodes[i].next); c = int(w.tape.nodes[c].next) {
		if c == name || c == at.node || c == value {
			continue
		}
		full, err := d.memberName(c, pathLen)
		if err != nil {
			return err
		}
		if err := d.node(c, len(full), at); err != nil {
			return err
		}
	}
	return nil
}

// sample adds the value of a sample; when it is an object or an array, its leaves.
func (d *signalsDecoder) sample(value, pathLen int, at event) error {
	d.sink.setTime(at.ns, at.has)
	d.walk.skip = -1
	return d.walk.node(value, d.walk.path[:pathLen])
}

// extend appends the name that the object at index i gives itself to the path. It returns the member's index, or -1.
func (d *signalsDecoder) extend(i, pathLen int) (at, newLen int, err error) {
	w := &d.walk
	for _, candidate := range d.name {
		at := member(&w.tape, i, candidate, &d.unescape)
		if at < 0 || w.tape.nodes[at].kind != '"' {
			continue
		}
		w.path = w.path[:pathLen]
		if pathLen > 0 {
			w.path = append(w.path, '.')
		}
		quoted := w.tape.text(&w.tape.nodes[at])
		if longer(quoted, MaxName) {
			return -1, 0, errLongName()
		}
		d.unescape = d.unescape[:0]
		own := unquote(quoted, &d.unescape)
		if len(own) == 0 || hasControl(own) {
			return -1, 0, reject("%s is empty or has control characters", candidate)
		}
		w.path = append(w.path, own...)
		_, err := w.checkName(w.path)
		return at, len(w.path), err
	}
	return -1, pathLen, nil
}

// memberName puts the name of a member behind the path; unlike walker.name always in the path.
func (d *signalsDecoder) memberName(c, pathLen int) ([]byte, error) {
	w := &d.walk
	name, err := w.name(&w.tape.nodes[c], true, 0, pathLen)
	if err == nil && len(w.path) == 0 {
		w.path = append(w.path, name...)
		name = w.path
	}
	return name, err
}

func hasControl(b []byte) bool {
	for _, c := range b {
		if c < 0x20 {
			return true
		}
	}
	return false
}
