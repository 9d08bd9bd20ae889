package payload

import (
	"bytes"
	"strconv"
	"unicode/utf8"

	"github.com/leat-io/leat/internal/record"
)

// documentDecoder is the parsers auto and json: objects become a value for each leaf, named by its path.
type documentDecoder struct {
	sink         *sink
	bare         bool // auto: bare values and text too
	arraysAsJSON bool
	time         timeReader
	walk         walker
}

// Decode implements Decoder.
func (d *documentDecoder) Decode(rec *record.Record, dst []Row) ([]Row, error) {
	s := d.sink
	s.begin(rec, dst)
	w := &d.walk
	w.sink, w.arraysAsJSON = s, d.arraysAsJSON
	err := d.decode(rec.Payload)
	rows, none := s.end()
	if err != nil {
		return rows, err
	}
	return rows, none
}

func (d *documentDecoder) decode(payload []byte) error {
	doc := trim(payload)
	if len(doc) == 0 {
		return reject("empty payload")
	}
	switch c := doc[0]; {
	case c == '{' || c == '[':
		if err := d.walk.tape.parse(doc); err != nil {
			return err
		}
		if c == '{' {
			return d.object(0)
		}
		return d.array()
	case d.bare:
		return d.scalar(payload, doc)
	}
	return reject("not a JSON object or an array of objects")
}

// object adds the unit that the object at index i is.
func (d *documentDecoder) object(i int) error {
	at, err := d.time.read(&d.walk.tape, i, event{})
	if err != nil {
		return err
	}
	d.sink.setTime(at.ns, at.has)
	d.walk.skip = at.node
	if err := d.walk.children(i, 0); err != nil {
		return err
	}
	return d.sink.endUnit()
}

// array adds the elements of a document that is an array: each object is a unit of its own; other elements are values
// named by their index.
func (d *documentDecoder) array() error {
	w := &d.walk
	w.skip = -1
	others, index := 0, 0
	for i := 1; i < len(w.tape.nodes); i = int(w.tape.nodes[i].next) {
		n := &w.tape.nodes[i]
		switch {
		case n.kind == '{':
			if err := d.object(i); err != nil {
				return err
			}
		case !d.bare:
			return reject("element %d of the array is not an object", index)
		default:
			others++
		}
		index++
	}
	if others == 0 {
		return nil
	}
	if others != index {
		return reject("array of objects and other values")
	}
	d.sink.setTime(0, false)
	w.skip = -1
	if err := w.children(0, 0); err != nil {
		return err
	}
	return d.sink.endUnit()
}

// scalar adds a payload that is no object and no array.
func (d *documentDecoder) scalar(payload, doc []byte) error {
	var v Value
	switch {
	case isJSONNumber(doc):
		v = parseNumber(doc)
	case string(doc) == "true":
		v = Value{Kind: Bool, I: 1}
	case string(doc) == "false":
		v = Value{Kind: Bool}
	case string(doc) == "null":
		v = Value{Kind: Null}
	case doc[0] == '"':
		if err := d.walk.tape.parse(doc); err != nil {
			return err
		}
		v = Value{Kind: Text, S: unquote(doc, &d.sink.scratch)}
	default:
		if err := checkPlain(payload); err != nil {
			return err
		}
		v = Value{Kind: Text, S: payload}
	}
	if err := d.sink.addBare(v); err != nil {
		return err
	}
	return d.sink.endUnit()
}

// checkPlain accepts text that people write: UTF-8 without control characters but tab and line ends. What else there
// is comes from a device that sends binary data to a rule that does not say so.
func checkPlain(b []byte) error {
	if !utf8.Valid(b) {
		return reject("invalid UTF-8")
	}
	for i, c := range b {
		if c < 0x20 && c != '\t' && c != '\n' && c != '\r' {
			return reject("neither JSON nor text: control character 0x%02x at byte %d", c, i)
		}
	}
	return nil
}

// trim cuts what JSON calls white space off both ends.
func trim(b []byte) []byte { return bytes.Trim(b, " \t\r\n") }

// walker adds the leaves below a node of its tape to a sink.
type walker struct {
	tape         tape
	sink         *sink
	arraysAsJSON bool
	skip         int    // index of the node that is the time, or -1
	path         []byte // names of the containers around the current node, joined by '.'
}

// children adds what is in the container at index i. pathLen is how much of w.path names it; 0 is the document.
func (w *walker) children(i, pathLen int) error {
	object := w.tape.nodes[i].kind == '{'
	index := 0
	for c := i + 1; c < int(w.tape.nodes[i].next); c = int(w.tape.nodes[c].next) {
		if c == w.skip {
			continue
		}
		n := &w.tape.nodes[c]
		name, err := w.name(n, object, index, pathLen)
		if err != nil {
			return err
		}
		index++
		if err := w.node(c, name); err != nil {
			return err
		}
	}
	return nil
}

// node adds the node at index c, which is called name. A container's name lies at the start of w.path.
func (w *walker) node(c int, name []byte) error {
	n := &w.tape.nodes[c]
	if n.kind == '{' || (n.kind == '[' && !w.arraysAsJSON) {
		return w.children(c, len(name))
	}
	v := w.value(n)
	if len(w.path) > 0 && &w.path[0] == &name[0] {
		var err error
		if name, err = w.sink.keepName(name); err != nil {
			return err
		}
	}
	return w.sink.add(name, v)
}

// name is the path of a member or element. That of a leaf of the document stands in the document itself; all others
// are put together in w.path.
func (w *walker) name(n *node, object bool, index, pathLen int) ([]byte, error) {
	w.path = w.path[:pathLen]
	if pathLen > 0 {
		w.path = append(w.path, '.')
	}
	if !object {
		w.path = strconv.AppendInt(w.path, int64(index), 10)
		return w.checkName(w.path)
	}
	quoted := w.tape.doc[n.keyStart:n.keyEnd]
	switch {
	case len(quoted) == 2:
		return nil, reject("member without a name")
	case longer(quoted, MaxName):
		return nil, errLongName()
	}
	if pathLen == 0 && !n.container() && bytes.IndexByte(quoted, '\\') < 0 {
		return w.checkName(quoted[1 : len(quoted)-1 : len(quoted)-1])
	}
	from := len(w.path)
	if bytes.IndexByte(quoted, '\\') < 0 {
		w.path = append(w.path, quoted[1:len(quoted)-1]...)
		return w.checkName(w.path)
	}
	unquote(quoted, &w.path)
	if hasControl(w.path[from:]) {
		return nil, reject("control character in the name of a member")
	}
	return w.checkName(w.path)
}

func (w *walker) checkName(name []byte) ([]byte, error) {
	if len(name) > MaxName {
		return nil, errLongName()
	}
	return name, nil
}

func errLongName() error { return reject("name of more than %d bytes", MaxName) }

// value is the value of a leaf, or of a container as JSON text.
func (w *walker) value(n *node) Value {
	text := w.tape.text(n)
	switch n.kind {
	case '0':
		return parseNumber(text)
	case '"':
		return Value{Kind: Text, S: unquote(text, &w.sink.scratch)}
	case 't':
		return Value{Kind: Bool, I: 1}
	case 'f':
		return Value{Kind: Bool}
	case 'n':
		return Value{Kind: Null}
	}
	return Value{Kind: JSON, S: text}
}
