package sim

import (
	"bytes"
	"io"
	"testing"
)

// FuzzReadAcks holds that no bytes from a broker make the load generator panic or invent acknowledgements.
func FuzzReadAcks(f *testing.F) {
	f.Add([]byte{0x40, 2, 0, 1, 0x40, 2, 0, 2})
	f.Add([]byte{0x40, 2, 0})
	f.Add([]byte{0xd0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		n := 0
		if err := readAcks(bytes.NewReader(in), func(ids []uint16) { n += len(ids) }); err == nil {
			t.Fatal("ended without an error")
		}
		if n*4 > len(in) {
			t.Fatalf("%d acknowledgements in %d bytes", n, len(in))
		}
	})
}

func TestAcksMayComeInAnyPieces(t *testing.T) {
	in := []byte{0x40, 2, 0, 1, 0x40, 2, 1, 0, 0x40, 2, 0xff, 0xff}
	var got []uint16
	err := readAcks(iotestOneByte{bytes.NewReader(in)}, func(ids []uint16) { got = append(got, ids...) })
	if err != io.EOF || len(got) != 3 || got[1] != 256 || got[2] != 65535 {
		t.Fatalf("%v, %v", got, err)
	}
}

type iotestOneByte struct{ r io.Reader }

func (o iotestOneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }
