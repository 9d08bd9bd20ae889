package auth

import (
	"crypto/pbkdf2"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// maxRounds bounds the work that a stored PBKDF2 hash may ask for; maxCost the same for bcrypt (2^14 is about a second
// on a small box).
const (
	maxRounds = 2_000_000
	maxCost   = 14
)

var errHashForm = errors.New("is neither bcrypt ($2a$, $2b$, $2y$) nor a hash of mosquitto_passwd ($7$)")

// verifier is a parsed password hash.
type verifier interface {
	verify(password []byte) bool
}

type bcryptHash []byte

func (h bcryptHash) verify(password []byte) bool {
	return bcrypt.CompareHashAndPassword(h, password) == nil
}

type pbkdf2Hash struct {
	rounds    int
	salt, sum []byte
}

func (h *pbkdf2Hash) verify(password []byte) bool {
	got, err := pbkdf2.Key(sha512.New, string(password), h.salt, h.rounds, len(h.sum))
	return err == nil && subtle.ConstantTimeCompare(got, h.sum) == 1
}

// parseHash reads a stored hash.
func parseHash(s string) (verifier, error) {
	switch {
	case strings.HasPrefix(s, "$2a$"), strings.HasPrefix(s, "$2b$"), strings.HasPrefix(s, "$2y$"):
		cost, err := bcrypt.Cost([]byte(s))
		if err != nil || len(s) != 60 {
			return nil, errors.New("is a damaged bcrypt hash (want 60 characters)")
		}
		if cost > maxCost {
			return nil, fmt.Errorf("has bcrypt cost %d: at most %d", cost, maxCost)
		}
		return bcryptHash(s), nil
	case strings.HasPrefix(s, "$7$"):
		return parsePBKDF2(s)
	}
	return nil, errHashForm
}

// parsePBKDF2 reads $7$rounds$base64(salt)$base64(sum).
func parsePBKDF2(s string) (verifier, error) {
	parts := strings.Split(s, "$")
	if len(parts) != 5 {
		return nil, errors.New("is a damaged $7$ hash (want $7$rounds$salt$sum)")
	}
	rounds, err := strconv.Atoi(parts[2])
	if err != nil || rounds < 1 || rounds > maxRounds {
		return nil, fmt.Errorf("is a $7$ hash with %q rounds: want 1 to %d", parts[2], maxRounds)
	}
	salt, err1 := base64.StdEncoding.DecodeString(parts[3])
	sum, err2 := base64.StdEncoding.DecodeString(parts[4])
	if err1 != nil || err2 != nil || len(salt) < 8 || len(sum) != sha512.Size {
		return nil, errors.New("is a $7$ hash whose salt or sum is not what mosquitto_passwd writes")
	}
	return &pbkdf2Hash{rounds: rounds, salt: salt, sum: sum}, nil
}
