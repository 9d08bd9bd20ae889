package lake

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/vfs"
)

// nodeFile is the file in the data directory that keeps the node's id.
const nodeFile = "node"

// Machine is what tells one machine from another: a source ("board", "disk", "machine-id", "mac") to hashes of what it
// says here. A source that says nothing is not in it. Hashes, because the file goes into backups and bug reports.
type Machine map[string][]string

type nodeFact struct {
	Format  int     `json:"format"`
	ID      string  `json:"id"`
	Machine Machine `json:"machine"`
}

// LoadNode returns the node's id: configured, when not empty, else the one kept in the file "node" of the data
// directory dir. A missing file, or one written on another machine (a cloned image), gives a new random id, which is
// kept and logged: two machines with one id would write the same keys.
func LoadNode(dir *vfs.Dir, configured string, machine Machine, log *slog.Logger) (string, error) {
	if configured != "" {
		return configured, nil
	}
	data, err := dir.ReadFile(nodeFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read node id: %w", err)
	}
	var fact nodeFact
	if err == nil {
		switch jerr := json.Unmarshal(data, &fact); {
		case jerr == nil && fact.Format > 1:
			return "", record.Errorf(record.Invalid, "node id file has format %d, newer than this leat", fact.Format).
				WithHint("install the leat that wrote this data directory, or a newer one")
		case jerr != nil || fact.ID == "" || strings.ContainsFunc(fact.ID, notKeyRune):
			log.Warn("node id file is damaged, making a new id", "file", filepath.Join(dir.Path(), nodeFile))
		case fact.Machine.same(machine):
			return fact.ID, nil
		default:
			log.Warn("data directory was copied from another machine, making a new node id", "old_node", fact.ID)
		}
	}
	var id [6]byte
	rand.Read(id[:])
	fact = nodeFact{Format: 1, ID: hex.EncodeToString(id[:]), Machine: machine}
	data, err = json.MarshalIndent(fact, "", " ")
	if err == nil {
		err = dir.WriteFile(nodeFile, append(data, '\n'))
	}
	if err != nil {
		return "", fmt.Errorf("keep node id: %w", err)
	}
	log.Info("new node id", "node", fact.ID)
	return fact.ID, nil
}

// same tells whether both describe one machine: every source that both know has a value in common. A part replaced
// makes another machine of it, which costs no more than a new id; a clone taken for the original would cost data.
func (m Machine) same(other Machine) bool {
	for source, values := range m {
		if now, ok := other[source]; ok && !slices.ContainsFunc(values, func(v string) bool {
			return slices.Contains(now, v)
		}) {
			return false
		}
	}
	return true
}

// ReadMachine asks this machine. Without root some sources stay silent; on systems other than Linux all but the host's
// name do.
func ReadMachine() Machine { return readMachine("/") }

// readMachine reads below root, where tests put a machine of their own.
func readMachine(root string) Machine {
	m := Machine{}
	sources := []struct{ name, glob string }{
		{"board", "proc/device-tree/serial-number"},
		{"board", "sys/class/dmi/id/product_uuid"},
		{"board", "sys/class/dmi/id/board_serial"},
		{"disk", "sys/block/mmcblk*/device/cid"},
		{"disk", "sys/block/nvme*/device/serial"},
		{"disk", "sys/block/sd*/device/wwid"},
		{"disk", "sys/block/vd*/serial"},
		{"machine-id", "etc/machine-id"},
		{"mac", "sys/class/net/*/device/address"}, // only interfaces with hardware: containers get a new one each time
	}
	for _, s := range sources {
		paths, err := filepath.Glob(filepath.Join(root, filepath.Dir(s.glob)))
		if err != nil {
			continue
		}
		for _, dir := range paths {
			name := filepath.Base(s.glob)
			if s.name == "mac" {
				dir = filepath.Dir(dir)
			}
			if b, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
				m.add(s.name, strings.Trim(string(b), " \t\r\n\x00"))
			}
		}
	}
	if host, err := os.Hostname(); err == nil && len(m) == 0 {
		m.add("host", host)
	}
	return m
}

func (m Machine) add(source, value string) {
	if value == "" || strings.Trim(value, "0:-") == "" {
		return
	}
	sum := sha256.Sum256([]byte(source + "\x00" + value))
	if h := hex.EncodeToString(sum[:8]); !slices.Contains(m[source], h) {
		m[source] = append(m[source], h)
	}
}
