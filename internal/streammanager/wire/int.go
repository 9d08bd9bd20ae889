package wire

import (
	"math"

	"github.com/fxamacker/cbor/v2"
)

// Int is a whole number of the protocol. Clients send floats for some of them; values beyond the range of int64 are clamped
// to it when they are decoded, and values beyond ±MaxNumber to that when they are encoded.
type Int int64

// MaxNumber is the largest number that is sent, 2^53-1: the reader of a JavaScript client dies of anything larger.
const MaxNumber = 1<<53 - 1

// NewInt is a pointer to v, for the optional fields.
func NewInt(v int64) *Int { i := Int(v); return &i }

// Or is *i, or def when i is nil.
func (i *Int) Or(def int64) int64 {
	if i == nil {
		return def
	}
	return int64(*i)
}

// MarshalCBOR clamps to ±MaxNumber.
func (i Int) MarshalCBOR() ([]byte, error) { return cbor.Marshal(clamp(int64(i))) }

// clamp is v within ±MaxNumber.
func clamp(v int64) int64 { return min(max(v, -MaxNumber), MaxNumber) }

// clampUint is v, or the largest Int.
func clampUint(v uint64) Int {
	if v > math.MaxInt64 {
		return math.MaxInt64
	}
	return Int(v)
}

// intOfFloat is f when f is a whole number, clamped to the range of Int. Infinities and NaN are not whole numbers.
func intOfFloat(f float64) (Int, bool) {
	switch {
	case f != math.Trunc(f) || math.IsInf(f, 0): // NaN differs from everything
		return 0, false
	case f >= 1<<63: // as float64(MaxInt64) is
		return math.MaxInt64, true
	case f <= -1<<63:
		return math.MinInt64, true
	}
	return Int(f), true
}

// floatOfHalf is the value of an IEEE 754 binary16, which Go has no type for.
func floatOfHalf(h uint16) float64 {
	sign, exponent, fraction := 1.0, int(h>>10&0x1f), float64(h&0x3ff)
	if h&0x8000 != 0 {
		sign = -1
	}
	switch exponent {
	case 0:
		return sign * math.Ldexp(fraction, -24)
	case 31:
		if fraction != 0 {
			return math.NaN()
		}
		return math.Inf(int(sign))
	}
	return sign * math.Ldexp(fraction+1024, exponent-25)
}
