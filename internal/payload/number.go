package payload

import (
	"bytes"
	"math"
	"strconv"
	"unsafe"
)

// parseNumber reads a valid JSON number. Integers are exact; a decimal is a Float when float64 holds all its digits,
// else a BigNumber.
func parseNumber(b []byte) Value {
	v, ok := parseInt(b)
	if ok {
		return v
	}
	return parseDecimal(b)
}

// parseInt reads an integer without sign of fraction or exponent. -0 is none: an int64 cannot hold its sign.
func parseInt(b []byte) (Value, bool) {
	digits := b
	neg := b[0] == '-'
	if neg {
		digits = b[1:]
	}
	var u uint64
	for _, c := range digits {
		if c < '0' || c > '9' {
			return Value{}, false
		}
		if len(digits) <= 18 {
			u = u*10 + uint64(c-'0')
		}
	}
	switch {
	case neg && len(digits) == 1 && u == 0:
		return Value{}, false
	case len(digits) <= 18 && neg:
		return Value{Kind: Int, I: -int64(u)}, true
	case len(digits) <= 18:
		return Value{Kind: Int, I: int64(u)}, true
	}
	i, err := strconv.ParseInt(alias(b), 10, 64)
	if err != nil {
		return Value{Kind: BigNumber, S: b}, true
	}
	return Value{Kind: Int, I: i}, true
}

// parseDecimal reads a JSON number that is no integer literal (or is -0).
func parseDecimal(b []byte) Value {
	m, exp, digits, ok := mantissa(b)
	if ok && m <= 1<<53 && exp >= -22 && exp <= 22 {
		// Both are exact as float64, so that one operation rounds once (Clinger, 1990).
		f := float64(m)
		if exp < 0 {
			f /= pow10[-exp]
		} else {
			f *= pow10[exp]
		}
		if b[0] == '-' {
			f = -f
		}
		if digits <= 15 {
			return Value{Kind: Float, F: f}
		}
		return exactly(b, f)
	}
	f, err := strconv.ParseFloat(alias(b), 64)
	const smallestNormal = 0x1p-1022
	if err == nil && ok && digits <= 15 && (math.Abs(f) >= smallestNormal || m == 0) {
		return Value{Kind: Float, F: f}
	}
	if err != nil {
		return Value{Kind: BigNumber, S: b} // beyond the range of float64
	}
	return exactly(b, f)
}

var pow10 = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

// mantissa splits a JSON number into m × 10^exp, without its sign, and counts the digits of m from the first to the
// last that is not 0. ok is false when m has more than 19 digits or the exponent more than 4.
func mantissa(b []byte) (m uint64, exp, digits int, ok bool) {
	i, seen, last, whole := 0, 0, 0, -1 // digits seen, up to the last that is not 0, before the point
	if b[0] == '-' {
		i = 1
	}
	for ; i < len(b) && b[i] != 'e' && b[i] != 'E'; i++ {
		c := b[i]
		if c == '.' {
			whole = seen
			continue
		}
		seen++
		if c == '0' {
			continue
		}
		if m == 0 {
			last = seen - 1
		}
		if digits += seen - last; digits > 19 {
			return 0, 0, digits, false
		}
		for ; last < seen; last++ {
			m *= 10
		}
		m += uint64(c - '0')
	}
	if whole < 0 {
		whole = seen
	}
	if m != 0 {
		exp = whole - last
	}
	if i < len(b) {
		e, err := strconv.Atoi(alias(b[i+1:]))
		if err != nil || e > 9999 || e < -9999 {
			return m, 0, digits, false
		}
		exp += e
	}
	return m, exp, digits, true
}

// exactly returns f when it holds all digits of b, else b. It does when f written with as many digits is b again.
func exactly(b []byte, f float64) Value {
	var want, got [40]byte
	w, ok := significant(want[:0], b)
	if ok {
		var text [56]byte
		for _, prec := range [2]int{-1, max(len(w)-1, 0)} {
			g, _ := significant(got[:0], strconv.AppendFloat(text[:0], f, 'e', prec, 64))
			if bytes.Equal(w, g) && (len(w) > 0 || f == 0) {
				return Value{Kind: Float, F: f}
			}
		}
	}
	return Value{Kind: BigNumber, S: b}
}

// significant appends the digits of a number from the first to the last that is not 0. Of more than cap(dst) it gives
// up: no float64 is told apart by so many.
func significant(dst, b []byte) ([]byte, bool) {
	zeros := 0
	for _, c := range b {
		switch {
		case c == 'e' || c == 'E':
			return dst, true
		case c == '0':
			if len(dst) > 0 {
				zeros++
			}
		case c >= '1' && c <= '9':
			if len(dst)+zeros+1 > cap(dst) {
				return dst, false
			}
			for ; zeros > 0; zeros-- {
				dst = append(dst, '0')
			}
			dst = append(dst, c)
		}
	}
	return dst, true
}

// alias lends b to strconv as a string: a copy would be the only allocation of a hot path. strconv clones what it puts
// into its errors.
func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
