package query

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/leat-io/leat/internal/query/wire"
	"github.com/leat-io/leat/internal/record"
)

// StatementError says what is wrong with a statement, and where.
type StatementError struct {
	Message  string
	Position int // byte in the statement; -1 when not known
	Line     int // from 1; 0 when not known
	Column   int // in characters, from 1
	Excerpt  string
	indent   int // characters of the excerpt before the place
}

// Error is the message, with the place and the line it is in where known.
func (e *StatementError) Error() string {
	if e.Line == 0 {
		return e.Message
	}
	marker := strings.Repeat(" ", e.indent) + "^"
	return fmt.Sprintf("line %d, column %d: %s\n  %s\n  %s", e.Line, e.Column, e.Message, e.Excerpt, marker)
}

// excerptRunes is how much of a long line is shown on each side of the place.
const excerptRunes = 40

// newStatementError finds line and column of a position. The worker is not trusted with either.
func newStatementError(message, statement string, position int) *StatementError {
	e := &StatementError{Message: message, Position: -1}
	if position < 0 || position > len(statement) {
		return e
	}
	before := statement[:position]
	start := strings.LastIndexByte(before, '\n') + 1
	end := len(statement)
	if i := strings.IndexByte(statement[position:], '\n'); i >= 0 {
		end = position + i
	}
	e.Position, e.Line = position, strings.Count(before, "\n")+1
	left := []rune(statement[start:position])
	right := []rune(statement[position:end])
	e.Column = utf8.RuneCountInString(statement[start:position]) + 1
	prefix := ""
	if len(left) > excerptRunes {
		left, prefix = left[len(left)-excerptRunes:], "…"
	}
	suffix := ""
	if len(right) > excerptRunes {
		right, suffix = right[:excerptRunes], "…"
	}
	e.Excerpt = strings.ReplaceAll(prefix+string(left)+string(right)+suffix, "\t", " ")
	e.indent = utf8.RuneCountInString(prefix) + len(left)
	return e
}

// failureError turns what the worker reports into an error.
func failureError(f wire.Failure, statement string) error {
	kind, hint := record.Invalid, f.Hint
	switch f.Kind {
	case wire.KindDenied:
		kind = record.Denied
		if hint == "" {
			hint = "a query sees the tables of the lake (SHOW TABLES) and nothing else"
		}
	case wire.KindMemory:
		kind = record.Unavailable
		if hint == "" {
			hint = "narrow it by year, month, day or ts, ask for fewer groups, or raise sql.memory_bytes or sql.spill_bytes"
		}
	case wire.KindSandbox:
		kind = record.Unavailable
	case wire.KindInternal:
		kind = record.Internal
	}
	return record.Errorf(kind, "%w", newStatementError(f.Message, statement, f.Position)).WithHint("%s", hint)
}
