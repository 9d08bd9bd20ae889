package lake

import (
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxColumns is the most columns a table has; what more there is goes into _extra. Engines plan in time that grows with
// the number of columns, and each costs some 450 bytes of footer in every file.
const MaxColumns = 1000

// maxName is the longest column name, in bytes: Glue takes 255, and a number may be appended.
const maxName = 120

// Names of the columns that leat itself fills.
const (
	colTime     = "ts"
	colTopic    = "topic"
	colSignal   = "signal"
	colValue    = "value"
	colText     = "text"
	colReason   = "reason"
	colPayload  = "payload"
	colExtra    = "_extra"
	colNode     = "_node"
	colSeq      = "_seq"
	colReceived = "_received"
)

// reservedNames are never given to a field or label, in any layout, so that a table can be moved to the other layout
// or partitioned by the hour without a rename. Names of the partition pattern are added to them.
func reservedNames() []string {
	return []string{
		colTime, colTopic, colSignal, colValue, colText, colExtra, colNode, colSeq, colReceived,
		"year", "month", "day", "hour", "dt",
	}
}

// columnName makes a field's name one that DuckDB, Athena and the rest take without quoting where that is possible:
// lower case (they do not tell cases apart, and Glue stores lower case), letters, digits and underscores, not starting
// with a digit. Letters of any script stay: a name nobody can read helps nobody.
func columnName(source string) string {
	var b strings.Builder
	for _, r := range source {
		switch {
		case r == utf8.RuneError:
			b.WriteByte('_')
		case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_':
			b.WriteRune(unicode.ToLower(r))
		default:
			b.WriteByte('_')
		}
	}
	name := b.String()
	for len(name) > maxName {
		_, size := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-size]
	}
	switch {
	case strings.Trim(name, "_") == "":
		return "field" + name
	case name[0] >= '0' && name[0] <= '9':
		return "c_" + name
	}
	return name
}

// freeName is columnName(source), changed until taken does not hold it: a reserved name gets an underscore at its end,
// a second field of one name "_2", "_3" …
func freeName(source string, reserved []string, taken func(string) bool) string {
	name := columnName(source)
	if slices.Contains(reserved, name) {
		name += "_"
	}
	for n, base := 2, name; taken(name); n++ {
		name = base + "_" + strconv.Itoa(n)
	}
	return name
}
