package streammanager

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/streammanager/wire"
)

// A file of tokens has one line for each:
//
//	# who      token                             which streams
//	sensors    sha256:9f86d081884c7d65…          sensor*, status
//	collector  iV6rEXAMPLEk0pTnQ8sY3             *
//
// The first two fields end at white space; the rest of the line are patterns between commas. A stream's name may have
// spaces, and so may a pattern; for a comma in a name, write ?.

// The limits of a file of tokens.
const (
	maxTokensFile = 1 << 20 // bytes
	minToken      = 16      // bytes of a token: the nucleus of Greengrass makes them 16 long
)

// hashForm is how a line holds the sum of a token instead of the token.
const hashForm = "sha256:"

// grant is what one token allows. A nil grant allows everything: no token was asked for.
type grant struct {
	name    string // of the token, for logs and messages
	sum     [sha256.Size]byte
	streams []string // patterns
}

// allows reports whether the stream may be used. Any name may be asked for, also such as no stream can have.
func (g *grant) allows(stream string) bool { return g == nil || matchAny(g.streams, stream) }

// check is the error of a stream that is not allowed: Unauthorized, whether it exists or not.
func (g *grant) check(stream string) error {
	if g.allows(stream) {
		return nil
	}
	return wire.Errorf(wire.Unauthorized, "the token %q may not use the stream %.300q: add it to the token's line in stream_manager.tokens_file, and restart", g.name, stream)
}

// tokens are the grants of a file. It does not change, so it needs no lock.
type tokens []grant

// find returns the grant of a token. It takes the same time whichever of the tokens it is, or none: the sums are compared,
// and all of them.
func (t tokens) find(token string) (*grant, bool) {
	sum := sha256.Sum256([]byte(token))
	found := -1
	for i := range t {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(sum[:], t[i].sum[:]), i, found)
	}
	if found < 0 {
		return nil, false
	}
	return &t[found], true
}

// loadTokens reads the file of stream_manager.tokens_file. No error repeats a token.
func loadTokens(path string, log *slog.Logger) (tokens, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, record.Errorf(record.Invalid, "stream_manager.tokens_file: %w", err).
			WithHint("make the file, with lines of NAME TOKEN STREAMS, readable for leat's user only (chmod 600)")
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("stream_manager.tokens_file: %w", err)
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		log.Warn("others may read or write the file of tokens", "file", path, "mode", mode.String(), "hint", "chmod 600 "+path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxTokensFile+1))
	if err != nil {
		return nil, fmt.Errorf("stream_manager.tokens_file: %w", err)
	}
	list, err := parseTokens(text)
	if err != nil {
		return nil, record.Errorf(record.Invalid, "stream_manager.tokens_file: %s:%w", path, err).
			WithHint("a line is: NAME TOKEN STREAMS, for example: sensors 4pTnQ8sY3iV6rEk0 sensor*, status")
	}
	return list, nil
}

// parseTokens reads the text of a file. Errors begin with the number of the line.
func parseTokens(text []byte) (tokens, error) {
	if len(text) > maxTokensFile {
		return nil, fmt.Errorf("1: larger than %d bytes", maxTokensFile)
	}
	var list tokens
	names, sums := map[string]bool{}, map[[sha256.Size]byte]bool{}
	sc := bufio.NewScanner(bytes.NewReader(text))
	sc.Buffer(nil, maxTokensFile+1)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		g, err := parseToken(line)
		switch {
		case err != nil:
		case names[g.name]:
			err = fmt.Errorf("the name %q is there already", g.name)
		case sums[g.sum]:
			err = fmt.Errorf("the token of %q is another's already", g.name)
		}
		if err != nil {
			return nil, fmt.Errorf("%d: %w", n, err)
		}
		names[g.name], sums[g.sum] = true, true
		list = append(list, g)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("1: %w", err)
	}
	if len(list) == 0 {
		return nil, errors.New("1: no token in it, so nobody could connect")
	}
	return list, nil
}

func parseToken(line string) (grant, error) {
	name, rest := cutField(line)
	token, patterns := cutField(rest)
	g := grant{name: name}
	if token == "" {
		return g, errors.New("want a name, a token and patterns of streams")
	}
	if sum, ok := strings.CutPrefix(token, hashForm); ok {
		b, err := hex.DecodeString(sum)
		if err != nil || len(b) != sha256.Size {
			return g, fmt.Errorf("the sum of %q is none: want sha256: and %d hexadecimal digits", name, 2*sha256.Size)
		}
		copy(g.sum[:], b)
	} else {
		if len(token) < minToken {
			return g, fmt.Errorf("the token of %q is too short: want %d characters or more", name, minToken)
		}
		g.sum = sha256.Sum256([]byte(token))
	}
	for p := range strings.SplitSeq(patterns, ",") {
		if p = strings.TrimSpace(p); p == "" {
			return g, fmt.Errorf("the streams of %q are missing or have an empty pattern: write * for all", name)
		}
		g.streams = append(g.streams, p)
	}
	return g, nil
}

// cutField cuts the first field off, and the white space behind it.
func cutField(s string) (field, rest string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimLeft(s[i:], " \t")
}

// matchAny reports whether one of the patterns matches the name.
func matchAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if match(p, name) {
			return true
		}
	}
	return false
}

// match reports whether the whole name is as the pattern says: * is any number of bytes, also none, ? is one, and the
// rest stands for itself. It takes at most len(pattern) × len(name) steps: of several *, only the last is tried again.
func match(pattern, name string) bool {
	p, n := 0, 0
	star, again := -1, 0 // the last * so far, and where in name it is tried to end next
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, again = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p, n = p+1, n+1
		case star >= 0:
			again++
			p, n = star+1, again
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
