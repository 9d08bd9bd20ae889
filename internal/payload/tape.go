package payload

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// maxNodes bounds a tape: values and the objects and arrays around them.
const maxNodes = 2 * MaxValues

// node is one JSON value on the tape. Spans are offsets into the document.
type node struct {
	kind             jsontext.Kind // '{' '[' '"' '0' 't' 'f' 'n'
	keyStart, keyEnd uint32        // the quoted name, when the value is a member of an object; else empty
	start, end       uint32        // the value's text; strings with their quotes
	next             uint32        // index of the node behind this one and what is in it
}

func (n *node) container() bool { return n.kind == '{' || n.kind == '[' }

// tape is a parsed document. It is reused from one document to the next.
type tape struct {
	doc   []byte
	nodes []node
	buf   bytes.Buffer // holds no bytes of its own: it lends doc to dec, which reads a bytes.Buffer in place
	dec   *jsontext.Decoder
}

// parse reads doc, which must be one valid JSON value and nothing else.
func (t *tape) parse(doc []byte) error {
	if cap(t.nodes) > keepScratch/32 {
		t.nodes = nil
	}
	t.doc, t.nodes = doc, t.nodes[:0]
	if len(doc) > math.MaxInt32 {
		return reject("JSON of %d bytes", len(doc))
	}
	t.buf = *bytes.NewBuffer(doc)
	if t.dec == nil {
		t.dec = jsontext.NewDecoder(&t.buf)
	} else {
		t.dec.Reset(&t.buf)
	}
	if err := t.value(0, 0, 0); err != nil {
		return t.reason(err)
	}
	if _, err := t.dec.ReadToken(); !errors.Is(err, io.EOF) {
		if err == nil {
			return reject("JSON: more than one value")
		}
		return t.reason(err)
	}
	return nil
}

// value reads the next value, with the name of the given span, and what is in it.
func (t *tape) value(keyStart, keyEnd uint32, depth int) error {
	if len(t.nodes) >= maxNodes {
		return reject("JSON: more than %d values", MaxValues)
	}
	i := len(t.nodes)
	t.nodes = append(t.nodes, node{keyStart: keyStart, keyEnd: keyEnd})
	kind := t.dec.PeekKind()
	if kind != '{' && kind != '[' {
		v, err := t.dec.ReadValue()
		if err != nil {
			return err
		}
		n, end := &t.nodes[i], uint32(t.dec.InputOffset())
		n.kind, n.start, n.end, n.next = kind, end-uint32(len(v)), end, uint32(i+1)
		return nil
	}
	if depth >= MaxDepth {
		return reject("JSON: more than %d levels", MaxDepth)
	}
	if _, err := t.dec.ReadToken(); err != nil {
		return err
	}
	start := uint32(t.dec.InputOffset()) - 1
	if err := t.members(kind, depth); err != nil {
		return err
	}
	if _, err := t.dec.ReadToken(); err != nil {
		return err
	}
	n := &t.nodes[i]
	n.kind, n.start, n.end, n.next = kind, start, uint32(t.dec.InputOffset()), uint32(len(t.nodes))
	return nil
}

// members reads up to, without, the end of an object or array.
func (t *tape) members(kind jsontext.Kind, depth int) error {
	end := jsontext.Kind(kind + 2) // '{' + 2 = '}', '[' + 2 = ']'
	for {
		switch t.dec.PeekKind() {
		case end:
			return nil
		case 0: // the end of the text, or an error: reading tells which
			_, err := t.dec.ReadToken()
			return err
		}
		var keyStart, keyEnd uint32
		if kind == '{' {
			key, err := t.dec.ReadValue()
			if err != nil {
				return err
			}
			keyEnd = uint32(t.dec.InputOffset())
			keyStart = keyEnd - uint32(len(key))
		}
		if err := t.value(keyStart, keyEnd, depth+1); err != nil {
			return err
		}
	}
}

// reason turns an error of the tokenizer into one for people, without the pointer: member names are payload.
func (t *tape) reason(err error) error {
	se, ok := errors.AsType[*jsontext.SyntacticError](err)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return reject("JSON: ends early, after %d bytes", len(t.doc))
	case ok && errors.Is(err, jsontext.ErrDuplicateName):
		return reject("JSON: duplicate member name before byte %d", se.ByteOffset)
	case ok:
		return reject("JSON: %s, near byte %d", strings.TrimPrefix(se.Err.Error(), "jsontext: "), se.ByteOffset)
	}
	return err
}

// text is the value's text as it stands in the document.
func (t *tape) text(n *node) []byte { return t.doc[n.start:n.end:n.end] }

// longer reports whether the string between quotes certainly has more than n bytes, so that it need not be unescaped: an
// escape of six bytes stands for one byte at least.
func longer(quoted []byte, n int) bool { return len(quoted)-2 > 6*n }

// unquote returns the string between quotes: in place when nothing is escaped, else appended to scratch.
func unquote(quoted []byte, scratch *[]byte) []byte {
	inner := quoted[1 : len(quoted)-1 : len(quoted)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return inner
	}
	from := len(*scratch)
	// The tokenizer has checked the string, so that this cannot fail.
	*scratch, _ = jsontext.AppendUnquote(*scratch, quoted)
	return (*scratch)[from:len(*scratch):len(*scratch)]
}
