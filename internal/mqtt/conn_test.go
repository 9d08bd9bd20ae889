package mqtt

import "testing"

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
