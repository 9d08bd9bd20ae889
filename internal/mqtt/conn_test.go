package mqtt

import (
	"bytes"
	"testing"
)

// FuzzCutPublish: whatever the bytes, the window passes or keeps every one of them, once and in order.
func FuzzCutPublish(f *testing.F) {
	f.Add([]byte{0x32, 5, 0, 1, 'a', 0, 7, 0x40, 2, 0, 1, 0x34, 5, 0, 1, 'a', 0, 8})
	f.Add([]byte{0x32, 0x80})
	f.Add([]byte("0\xee\xee\xee\xee\xee\xee\xee\xee\xee\x01")) // a length beyond any int
	f.Fuzz(func(t *testing.T, b []byte) {
		w := window{limit: 1, open: map[uint16]struct{}{}}
		got := len(w.pass(nil, b))
		for len(w.held) > 0 {
			for id := range w.open {
				got += len(w.acknowledged(id))
			}
		}
		if got != len(b) {
			t.Errorf("% x: %d of %d bytes came out", b, got, len(b))
		}
	})
}

func TestWindowKeepsOrder(t *testing.T) {
	w := window{limit: 2, open: map[uint16]struct{}{}}
	publish := func(id byte) []byte { return []byte{0x32, 5, 0, 1, 'a', 0, id} }
	ping := []byte{0xD0, 0}
	var all []byte
	for id := byte(1); id <= 4; id++ {
		all = append(append(all, publish(id)...), ping...)
	}
	want := bytes.Join([][]byte{publish(1), ping, publish(2), ping, ping, ping}, nil)
	if got := w.pass(nil, all); !bytes.Equal(got, want) {
		t.Errorf("passed % x, want % x", got, want)
	}
	if got := w.acknowledged(9); got != nil {
		t.Errorf("an identifier that was never sent let % x go", got)
	}
	if got := w.acknowledged(2); !bytes.Equal(got, publish(3)) {
		t.Errorf("next % x", got)
	}
	if got := w.pass(nil, publish(5)); len(got) != 0 {
		t.Errorf("% x overtook", got)
	}
	if got := w.acknowledged(1); !bytes.Equal(got, publish(4)) {
		t.Errorf("next % x", got)
	}
}

// FuzzCheckConnect: the verdict on the first bytes does not depend on how they arrive, and never comes after the fifth.
func FuzzCheckConnect(f *testing.F) {
	for _, b := range [][]byte{nil, {0x10}, {0x10, 12}, {0x10, 0xff, 0xff, 0xff, 0x7f}, {0x10, 0x80, 0x80, 0x80, 0x80}, {0x16, 3, 1}, []byte("GET /")} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 5 {
			b = b[:5]
		}
		whole, wholeErr := checkConnect(b, maxConnect)
		var complete bool
		var err error
		for i := 1; i <= len(b) && !complete && err == nil; i++ {
			complete, err = checkConnect(b[:i], maxConnect)
		}
		if complete != whole || (err == nil) != (wholeErr == nil) {
			t.Errorf("% x: at once %v %v, byte by byte %v %v", b, whole, wholeErr, complete, err)
		}
		if len(b) == 5 && !whole && wholeErr == nil {
			t.Errorf("% x: no verdict after five bytes", b)
		}
	})
}
