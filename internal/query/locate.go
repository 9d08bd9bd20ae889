package query

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/leat-io/leat/internal/record"
)

// program is the name of the worker's program.
const program = "leat-sql"

// Locate finds leat-sql: where sql.binary says, else beside the running program, else in PATH. The error says where it
// was looked for and what to install.
func Locate(configured string) (string, error) {
	if configured != "" {
		path, err := exec.LookPath(configured)
		if err != nil {
			return "", missing([]string{configured + " (sql.binary)"})
		}
		return absolute(path), nil
	}
	var looked []string
	if exe, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(exe), program)
		if path, err := exec.LookPath(beside); err == nil {
			return absolute(path), nil
		}
		looked = append(looked, beside)
	}
	if path, err := exec.LookPath(program); err == nil {
		return absolute(path), nil
	}
	return "", missing(append(looked, "the directories of PATH"))
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

func missing(looked []string) error {
	return record.Errorf(record.Unavailable, "SQL needs the program %s, which is not installed; looked for %s",
		program, strings.Join(looked, ", ")).
		WithHint("build it with `make leat-sql` or install the package leat-sql, and put it beside leat or into PATH, " +
			"or set sql.binary; everything but queries works without it")
}
