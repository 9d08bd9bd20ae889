package wire

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/leat-io/leat/internal/record"
)

// decoder takes items from CBOR that is well-formed, or a prefix of such: what a client sends is checked as a whole
// before, see wellFormed. It is bounds-checked all the same, and allocates by what is there, never by what a length
// claims.
//
// The first thing that is wrong stays in err and ends every loop over a map or an array, so that the code that takes
// fields needs no checks of its own. path is the keys on the way to where the decoder is, for that error's text.
type decoder struct {
	data []byte
	at   int
	err  error

	path  [maxPath]step
	depth int
}

// maxPath is how deep the messages are, in maps and arrays: Create has definition, exportDefinition, its lists, their
// elements, statusConfig.
const maxPath = 8

// maxNesting is how deep items may be nested at all: keys that are not known may hold anything.
const maxNesting = 16

// step is where the decoder is inside of one map or array.
type step struct {
	key   []byte // of the map's field; nil in an array
	index int    // of the array's element
}

// container is a map or an array that is being taken.
type container struct {
	left int  // fields or elements that are to come, of a definite one
	open bool // indefinite: a break ends it
	nth  int  // fields or elements begun
}

const (
	headBreak = 0xff
	headNull  = 0xf6
	headUndef = 0xf7
)

// fail keeps the first error: what is wrong at the current path.
func (d *decoder) fail(format string, args ...any) {
	if d.err != nil {
		return
	}
	var path strings.Builder
	for _, s := range d.path[:d.depth] {
		if s.key == nil {
			fmt.Fprintf(&path, "[%d]", s.index)
			continue
		}
		if path.Len() > 0 {
			path.WriteByte('.')
		}
		path.Write(s.key)
	}
	if path.Len() == 0 {
		path.WriteString("the request")
	}
	d.err = record.Errorf(record.Invalid, "%s: %s", path.String(), fmt.Sprintf(format, args...))
}

// require fails when a required field is missing.
func (d *decoder) require(present bool, name string) {
	if !present {
		d.fail("%s is missing: it is required", name)
	}
}

func (d *decoder) truncated() {
	d.at = len(d.data)
	d.fail("the data end in the middle of an item")
}

// head takes an item's head: its major type, the low five bits, and its argument.
func (d *decoder) head() (major, info byte, arg uint64) {
	if d.err != nil || d.at >= len(d.data) {
		d.truncated()
		return 0, 0, 0
	}
	b := d.data[d.at]
	major, info = b>>5, b&0x1f
	d.at++
	if info < 24 {
		return major, info, uint64(info)
	}
	rest := d.data[d.at:]
	switch {
	case info == 24 && len(rest) >= 1:
		d.at++
		return major, info, uint64(rest[0])
	case info == 25 && len(rest) >= 2:
		d.at += 2
		return major, info, uint64(binary.BigEndian.Uint16(rest))
	case info == 26 && len(rest) >= 4:
		d.at += 4
		return major, info, uint64(binary.BigEndian.Uint32(rest))
	case info == 27 && len(rest) >= 8:
		d.at += 8
		return major, info, binary.BigEndian.Uint64(rest)
	case info == 31:
		return major, info, 0
	}
	d.truncated()
	return 0, 0, 0
}

// take takes n bytes, without a copy.
func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.data)-d.at) {
		d.truncated()
		return nil
	}
	start := d.at
	d.at += int(n)
	return d.data[start:d.at:d.at]
}

// null takes a null or an undefined if it is next: either means that the field is absent.
func (d *decoder) null() bool {
	if d.err == nil && d.at < len(d.data) && (d.data[d.at] == headNull || d.data[d.at] == headUndef) {
		d.at++
		return true
	}
	return false
}

// enter takes the head of a map or an array.
func (d *decoder) enter(major byte, want string) (c container) {
	if !d.expect(major, want) {
		return c
	}
	if d.depth == len(d.path) {
		d.fail("nested too deep") // unreachable: the messages are not so deep
		return c
	}
	_, info, n := d.head()
	d.path[d.depth] = step{}
	d.depth++
	return container{left: int(min(n, math.MaxInt)), open: info == 31}
}

// more says whether another field or element follows, and leaves the container when none does. After an error none does.
func (d *decoder) more(c *container) bool {
	switch {
	case d.err != nil:
		return false
	case c.open && d.at >= len(d.data):
		d.truncated()
		return false
	case c.open && d.data[d.at] == headBreak:
		d.at++
	case !c.open && c.nth >= c.left:
	default:
		c.nth++
		return true
	}
	d.depth--
	return false
}

// field takes the key of the next field, if there is one. A key that is not text is nil: no field has it.
func (d *decoder) field(c *container) (key []byte, ok bool) {
	if !d.more(c) {
		return nil, false
	}
	if d.at < len(d.data) && d.data[d.at]>>5 != majorText {
		d.skip(maxNesting)
	} else {
		key = d.strings(majorText)
	}
	d.path[d.depth-1] = step{key: key}
	return key, d.err == nil
}

// element goes to the next element, if there is one; more than limit are an error.
func (d *decoder) element(c *container, limit int) bool {
	if !d.more(c) {
		return false
	}
	if c.nth > limit {
		d.depth--
		d.fail("more than %d elements", limit)
		return false
	}
	d.path[d.depth-1] = step{index: c.nth - 1}
	return true
}

// strings takes a byte or text string, whose type the caller has seen: a part of data, but for one of indefinite length.
func (d *decoder) strings(major byte) []byte {
	_, info, n := d.head()
	if info != 31 {
		return d.take(n)
	}
	joined := []byte{}
	for d.err == nil {
		if d.at < len(d.data) && d.data[d.at] == headBreak {
			d.at++
			return joined
		}
		got, info, n := d.head()
		if got != major || info == 31 {
			d.fail("a string of indefinite length has a part that is no string")
			return nil
		}
		joined = append(joined, d.take(n)...)
	}
	return nil
}

// bytes takes a byte string, which aliases data where it can.
func (d *decoder) bytes(dst *[]byte) {
	*dst = nil
	if d.null() {
		return
	}
	if d.expect(majorBytes, "a byte string") {
		*dst = d.strings(majorBytes)
	}
}

// text takes a text string. *dst is kept when it is equal, which costs no allocation.
func (d *decoder) text(dst *string) {
	if d.null() {
		*dst = ""
		return
	}
	if !d.expect(majorText, "a text string") {
		return
	}
	b := d.strings(majorText)
	switch {
	case d.err != nil:
	case !utf8.Valid(b):
		d.fail("want text in UTF-8; it has bytes that are none")
	case *dst != string(b):
		*dst = string(b)
	}
}

// texts takes an array of text strings.
func (d *decoder) texts(dst *[]string, limit int) {
	*dst = nil
	if d.null() {
		return
	}
	for c := d.enter(majorArray, "an array of text strings"); d.element(&c, limit); {
		var s string
		d.text(&s)
		*dst = append(*dst, s)
	}
}

// bool takes a boolean.
func (d *decoder) bool(dst **bool) {
	*dst = nil
	if d.null() {
		return
	}
	if d.expect(majorSimple, "true or false") {
		switch _, info, _ := d.head(); info {
		case 20, 21:
			v := info == 21
			*dst = &v
		default:
			d.fail("want true or false")
		}
	}
}

// int takes a whole number of any form.
func (d *decoder) int(dst **Int) {
	*dst = nil
	if d.null() {
		return
	}
	if v, ok := d.number(); ok {
		*dst = &v
	}
}

// int64 takes a whole number; null is 0.
func (d *decoder) int64(dst *int64) {
	*dst = 0
	if d.null() {
		return
	}
	v, _ := d.number()
	*dst = int64(v)
}

func (d *decoder) number() (v Int, ok bool) {
	const want = "want a whole number"
	was := d.at
	major, info, arg := d.head()
	if d.err != nil {
		return 0, false
	}
	var f float64
	switch {
	case major == majorUint:
		return clampUint(arg), true
	case major == majorNint:
		return -1 - clampUint(arg), true
	case major == majorSimple && info == 25:
		f = floatOfHalf(uint16(arg))
	case major == majorSimple && info == 26:
		f = float64(math.Float32frombits(uint32(arg)))
	case major == majorSimple && info == 27:
		f = math.Float64frombits(arg)
	default:
		d.at = was
		d.fail(want+", not %s", d.kind())
		return 0, false
	}
	if v, ok = intOfFloat(f); !ok {
		d.fail(want+", not %v", f)
	}
	return v, ok
}

// expect fails unless an item of the type is next.
func (d *decoder) expect(major byte, want string) bool {
	switch {
	case d.err != nil:
		return false
	case d.at >= len(d.data):
		d.truncated()
		return false
	case d.data[d.at]>>5 != major:
		d.fail("want %s, not %s", want, d.kind())
		return false
	}
	return true
}

// kind is the next item's type in words.
func (d *decoder) kind() string {
	switch b := d.data[d.at]; b >> 5 {
	case majorSimple:
		switch b {
		case headNull, headUndef:
			return "null"
		case 0xf4, 0xf5:
			return "a boolean"
		case 0xf9, 0xfa, 0xfb:
			return "a float"
		}
		return "a simple value"
	default:
		return [...]string{"an integer", "a negative integer", "a byte string", "a text string", "an array", "a map", "a tagged value"}[b>>5]
	}
}

// skip passes over one item; nesting is how much deeper it may go.
func (d *decoder) skip(nesting int) {
	if nesting == 0 {
		d.fail("nested too deep")
		return
	}
	major, info, n := d.head()
	switch {
	case d.err != nil || major <= majorNint || major == majorSimple:
	case major == majorTag:
		d.skip(nesting - 1)
	case info == 31:
		for d.err == nil && (d.at >= len(d.data) || d.data[d.at] != headBreak) {
			d.skip(nesting - 1)
		}
		d.at++
	case major <= majorText:
		d.take(n)
	default:
		if major == majorMap {
			n *= 2 // overflows only when the data end long before
		}
		for ; n > 0 && d.err == nil; n-- {
			d.skip(nesting - 1)
		}
	}
}
