//go:build !linux

package query

// residentBytes is not known on this system: the SQL engine's own limit is all there is.
func residentBytes(int) int64 { return 0 }
