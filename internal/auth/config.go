package auth

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/leat-io/leat/internal/record"

	"go.yaml.in/yaml/v3"
)

// Config is the `auth` section: who may come in, and what each may do.
type Config struct {
	// UsersFile lists more users, one `name:hash` per line, as mosquitto_passwd and `htpasswd -B` write them.
	UsersFile string `yaml:"users_file,omitempty"`
	// Users are listed here or in UsersFile; a name may stand in one place only.
	Users []User `yaml:"users,omitempty"`
	// Policies are named documents in the form of IAM policies.
	Policies map[string]Policy `yaml:"policies,omitempty"`
	// DefaultPolicies apply to users that name none, those of UsersFile included. Empty: such a user may do
	// everything.
	DefaultPolicies []string `yaml:"default_policies,omitempty"`
	// AnonymousPolicies apply to clients that a listener lets in without a name. Empty: everything.
	AnonymousPolicies []string `yaml:"anonymous_policies,omitempty"`
}

// User is one entry of the users list.
type User struct {
	Name string `yaml:"name"`
	// PasswordHash is bcrypt ($2a$, $2b$, $2y$) or PBKDF2-SHA512 as mosquitto_passwd writes it ($7$). A user without
	// one can only come in with a client certificate of that common name.
	PasswordHash string   `yaml:"password_hash,omitempty"`
	Policies     []string `yaml:"policies,omitempty"`
}

// Policy is an IAM policy document: the union of its Allow statements, less what a Deny statement names.
type Policy struct {
	Version   string      `yaml:"Version,omitempty" json:"Version,omitempty"`
	Statement []Statement `yaml:"Statement" json:"Statement"`
}

// Statement allows or denies actions on resources.
type Statement struct {
	Sid      string `yaml:"Sid,omitempty" json:"Sid,omitempty"`
	Effect   string `yaml:"Effect" json:"Effect"` // Allow or Deny
	Action   Texts  `yaml:"Action" json:"Action"` // mqtt:Publish, mqtt:Subscribe, mqtt:Connect; * and ? as in IAM
	Resource Texts  `yaml:"Resource" json:"Resource"`
}

// Texts is a list of strings that may be written as one string.
type Texts []string

// UnmarshalYAML reads a string or a list of strings.
func (t *Texts) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*t = Texts{n.Value}
		return nil
	}
	var list []string
	if err := n.Decode(&list); err != nil {
		return fmt.Errorf("line %d: want a text or a list of texts", n.Line)
	}
	*t = list
	return nil
}

// UnmarshalJSON reads a string or a list of strings.
func (t *Texts) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*t = Texts{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(t))
}

// DefaultConfig has no users: what a listener then demands is the listener's rule.
func DefaultConfig() Config { return Config{} }

// Validate reports the first thing wrong, with its key and what to write instead. It reads no file.
func (c *Config) Validate() error {
	seen := map[string]bool{}
	for i, u := range c.Users {
		key := fmt.Sprintf("auth.users[%d]", i)
		if err := checkUserName(u.Name); err != nil {
			return record.Errorf(record.Invalid, "%s.name: %w", key, err)
		}
		if seen[u.Name] {
			return record.Errorf(record.Invalid, "%s.name: %q is listed twice", key, u.Name).WithHint("remove one of the two")
		}
		seen[u.Name] = true
		if u.PasswordHash != "" {
			if _, err := parseHash(u.PasswordHash); err != nil {
				return record.Errorf(record.Invalid, "%s.password_hash: %w", key, err).
					WithHint("write a hash, never the password: `mosquitto_passwd` or `htpasswd -nB %s` makes one", u.Name)
			}
		}
		if err := c.knownPolicies(key+".policies", u.Policies); err != nil {
			return err
		}
	}
	if err := c.knownPolicies("auth.default_policies", c.DefaultPolicies); err != nil {
		return err
	}
	if err := c.knownPolicies("auth.anonymous_policies", c.AnonymousPolicies); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(c.Policies)) {
		if _, err := compile(c.Policies[name]); err != nil {
			return record.Errorf(record.Invalid, "auth.policies.%s: %w", name, err).
				WithHint("the form is {Statement: [{Effect: Allow, Action: mqtt:Publish, Resource: \"topic/plant/#\"}]}")
		}
	}
	return nil
}

func (c *Config) knownPolicies(key string, names []string) error {
	for _, name := range names {
		if _, ok := c.Policies[name]; !ok {
			return record.Errorf(record.Invalid, "%s: no policy is called %q", key, name).
				WithHint("define it below auth.policies, or correct the name (there are: %s)",
					strings.Join(slices.Sorted(maps.Keys(c.Policies)), ", "))
		}
	}
	return nil
}

func checkUserName(name string) error {
	switch {
	case name == "":
		return record.Errorf(record.Invalid, "is empty").WithHint("give the user a name")
	case len(name) > 255:
		return record.Errorf(record.Invalid, "has %d bytes: at most 255", len(name))
	case strings.ContainsAny(name, ":\n\r\x00"):
		return record.Errorf(record.Invalid, "%q contains a colon or a line end", name)
	}
	return nil
}
