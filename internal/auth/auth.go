// Package auth says who a caller is and what it may do: one principal and one policy form for all doors.
//
// An Authority is made of a Config (users, policies) and answers Authenticate with a Principal, and the Principal
// answers Allowed. Policies have the form of IAM documents; resources so far are `topic/<filter>` (with MQTT's + and #
// beside IAM's * and ?), `client/<id>`, and later doors add theirs. ${user} and ${client} stand for the caller's names.
//
// Guarantees: passwords are stored as bcrypt or PBKDF2 hashes and compared in constant time; an unknown name costs as
// much time as a wrong password; a value that a client chose never acts as a wildcard. At most one hash per processor
// is computed at a time, and a password that was right is remembered as a keyed digest, so that a thousand devices that
// reconnect do not occupy the box for a minute.
//
// An Authority is safe for concurrent use and starts no goroutine. Replace exchanges users and policies while it runs;
// a Principal handed out keeps the policies it was made with, so doors that want changes at once reconnect clients.
//
// It does not encrypt, does not limit attempts per address, and knows no groups: policies are named per user.
package auth

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/leat-io/leat/internal/record"
)

// maxRemembered bounds the digests of right passwords; when full, they are forgotten and computed again.
const maxRemembered = 4096

// Principal is an authenticated caller (or an anonymous one, whose Name is empty).
type Principal struct {
	Name     string
	policies []rules // none: everything is allowed
}

// Allowed reports whether the principal may do the action on the resource. A Deny wins over an Allow, and what no
// statement names is refused, unless the principal has no policies at all.
func (p *Principal) Allowed(action, resource, client string) bool {
	if len(p.policies) == 0 {
		return true
	}
	v, allowed := Vars{User: p.Name, Client: client}, false
	for _, rs := range p.policies {
		yes, no := rs.decide(action, resource, v)
		if no {
			return false
		}
		allowed = allowed || yes
	}
	return allowed
}

// Unrestricted reports whether Allowed says yes to everything.
func (p *Principal) Unrestricted() bool { return len(p.policies) == 0 }

// Authority authenticates.
type Authority struct {
	current atomic.Pointer[directory]
	hashing chan struct{} // one slot per processor
	key     [32]byte

	mu         sync.Mutex
	remembered map[string][sha256.Size]byte // guarded by mu: user → digest of the password that was right
}

// directory is one configuration, immutable.
type directory struct {
	users     map[string]*account
	defaults  []rules
	anonymous *Principal
	dummy     verifier // what unknown names are compared with
}

type account struct {
	stored    string
	hash      verifier // nil: no password
	principal *Principal
}

// Open checks cfg, reads its users file and returns an Authority.
func Open(cfg Config) (*Authority, error) {
	a := &Authority{hashing: make(chan struct{}, runtime.GOMAXPROCS(0)), remembered: map[string][sha256.Size]byte{}}
	rand.Read(a.key[:])
	if err := a.Replace(cfg); err != nil {
		return nil, err
	}
	return a, nil
}

// Replace exchanges users and policies. On an error the old ones stay.
func (a *Authority) Replace(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	if cfg.UsersFile != "" {
		b, err := os.ReadFile(cfg.UsersFile)
		if err != nil {
			return record.Errorf(record.Invalid, "auth.users_file: %w", err).
				WithHint("make one with `mosquitto_passwd -c %s NAME`, or remove the key", cfg.UsersFile)
		}
		more, err := ParseUsers(b)
		if err != nil {
			return record.Errorf(record.Invalid, "auth.users_file %s: %w", cfg.UsersFile, err)
		}
		cfg.Users = append(cfg.Users[:len(cfg.Users):len(cfg.Users)], more...)
		if err := cfg.Validate(); err != nil {
			return fmt.Errorf("with the users of %s: %w", cfg.UsersFile, err)
		}
	}
	d, err := build(cfg)
	if err != nil {
		return err
	}
	a.mu.Lock()
	clear(a.remembered)
	a.mu.Unlock()
	a.current.Store(d)
	return nil
}

// ParseUsers reads lines of name:hash. Empty lines and lines that begin with # are skipped.
func ParseUsers(b []byte) ([]User, error) {
	var out []User
	sc := bufio.NewScanner(bytes.NewReader(b))
	for line := 1; sc.Scan(); line++ {
		text := strings.TrimSpace(sc.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		name, hash, ok := strings.Cut(text, ":")
		if !ok {
			return nil, fmt.Errorf("line %d: want name:hash", line)
		}
		if err := checkUserName(name); err != nil {
			return nil, fmt.Errorf("line %d: the name %w", line, err)
		}
		if _, err := parseHash(hash); err != nil {
			return nil, fmt.Errorf("line %d: the password of %q %w", line, name, err)
		}
		out = append(out, User{Name: name, PasswordHash: hash})
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("read lines: %w", err)
	}
	return out, nil
}

func build(cfg Config) (*directory, error) {
	named := map[string]rules{}
	for name, p := range cfg.Policies {
		rs, err := compile(p)
		if err != nil {
			return nil, err
		}
		named[name] = rs
	}
	pick := func(names []string) (out []rules) {
		for _, n := range names {
			out = append(out, named[n])
		}
		return out
	}
	d := &directory{users: map[string]*account{}, defaults: pick(cfg.DefaultPolicies)}
	d.anonymous = &Principal{policies: pick(cfg.AnonymousPolicies)}
	for _, u := range cfg.Users {
		acc := &account{stored: u.PasswordHash, principal: &Principal{Name: u.Name, policies: pick(u.Policies)}}
		if len(u.Policies) == 0 {
			acc.principal.policies = d.defaults
		}
		if u.PasswordHash != "" {
			acc.hash, _ = parseHash(u.PasswordHash) // Validate has parsed it
			d.dummy = acc.hash
		}
		d.users[u.Name] = acc
	}
	return d, nil
}

// Configured reports whether there is at least one user.
func (a *Authority) Configured() bool { return len(a.current.Load().users) > 0 }

// Anonymous is the principal of clients that need no name.
func (a *Authority) Anonymous() *Principal { return a.current.Load().anonymous }

// Authenticate returns the principal for a name and a password, or a Denied error that does not tell which was wrong.
// It waits for a free processor, at most until ctx ends.
func (a *Authority) Authenticate(ctx context.Context, name string, password []byte) (*Principal, error) {
	d := a.current.Load()
	acc := d.users[name]
	var hash verifier
	stored := ""
	if acc != nil {
		hash, stored = acc.hash, acc.stored
	}
	known := hash != nil
	if !known {
		hash = d.dummy
	}
	if hash == nil {
		return nil, errDenied()
	}
	digest := a.digest(name, stored, password)
	if known && a.recall(name, digest) {
		return acc.principal, nil
	}
	select {
	case a.hashing <- struct{}{}:
	case <-ctx.Done():
		return nil, record.Errorf(record.Throttled, "too many logins at once: %w", ctx.Err())
	}
	right := hash.verify(password)
	<-a.hashing
	if !right || !known {
		return nil, errDenied()
	}
	a.remember(name, digest)
	return acc.principal, nil
}

// Certificate returns the principal of a verified client certificate: the user named by its common name when there is
// one, else a principal of that name with the default policies.
func (a *Authority) Certificate(cert *x509.Certificate) (*Principal, error) {
	name := cert.Subject.CommonName
	if name == "" {
		return nil, record.Errorf(record.Denied, "client certificate without a common name").
			WithHint("issue it with the device's name as CN")
	}
	d := a.current.Load()
	if acc := d.users[name]; acc != nil {
		return acc.principal, nil
	}
	return &Principal{Name: name, policies: d.defaults}, nil
}

func errDenied() error { return record.Errorf(record.Denied, "bad user name or password") }

// digest includes the stored hash, so that a changed password forgets the old one.
func (a *Authority) digest(name, stored string, password []byte) (out [sha256.Size]byte) {
	m := hmac.New(sha256.New, a.key[:])
	fmt.Fprintf(m, "%d:%s%d:%s", len(name), name, len(stored), stored)
	m.Write(password)
	m.Sum(out[:0])
	return out
}

func (a *Authority) recall(name string, digest [sha256.Size]byte) bool {
	a.mu.Lock()
	have, ok := a.remembered[name]
	a.mu.Unlock()
	return ok && hmac.Equal(have[:], digest[:])
}

func (a *Authority) remember(name string, digest [sha256.Size]byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.remembered) >= maxRemembered {
		clear(a.remembered)
	}
	a.remembered[name] = digest
}
