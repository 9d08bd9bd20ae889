package sqlworker

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/leat-io/leat/internal/query/wire"
)

// fullView declares a table over its files in the snapshot. A table's schema only widens, so files differ: older ones
// lack columns (union_by_name), and a column that none of the files at hand has is NULL. Partition columns come from the
// directories, with the types given, whatever the files say.
func (q *query) fullView(t wire.Table) error {
	files := q.source(t)
	found, err := q.columnsOf(files)
	if err != nil {
		return err
	}
	hive := map[string]bool{}
	var cols []string
	for _, h := range q.req.Hive {
		hive[strings.ToLower(h.Name)] = true
	}
	for _, c := range t.Columns {
		if hive[strings.ToLower(c.Name)] {
			continue
		}
		name := identifier(c.Name)
		switch typ := found[c.Name]; typ {
		case c.Type:
			cols = append(cols, name)
		case "":
			cols = append(cols, fmt.Sprintf("NULL::%s AS %s", c.Type, name))
		default:
			cols = append(cols, fmt.Sprintf("CAST(%s AS %s) AS %s", name, c.Type, name))
		}
	}
	for _, h := range q.req.Hive {
		cols = append(cols, identifier(h.Name))
	}
	return q.duck.exec(fmt.Sprintf("CREATE OR REPLACE VIEW %s AS SELECT %s FROM %s",
		identifier(t.Name), strings.Join(cols, ", "), files))
}

// source is the table function that reads the table's files.
func (q *query) source(t wire.Table) string {
	pattern := escapeGlob(filepath.Join(q.limits.snapshot, t.Dir)) + "/**/*.parquet"
	options := ", union_by_name = true"
	if len(q.req.Hive) > 0 {
		var types []string
		for _, h := range q.req.Hive {
			types = append(types, fmt.Sprintf("%s: %s", literal(h.Name), literal(h.Type)))
		}
		options += ", hive_partitioning = true, hive_types = {" + strings.Join(types, ", ") + "}"
	} else {
		options += ", hive_partitioning = false"
	}
	return "read_parquet(" + literal(pattern) + options + ")"
}

// columnsOf binds the files and returns the columns they have, with their types.
func (q *query) columnsOf(files string) (map[string]string, error) {
	s, err := q.duck.prepare("SELECT * FROM " + files)
	if err != nil {
		return nil, err
	}
	defer s.close()
	found := make(map[string]string, len(s.columns))
	for _, c := range s.columns {
		found[c.name] = c.typ
	}
	return found, nil
}

// escapeGlob makes a path stand for itself in DuckDB's patterns.
func escapeGlob(path string) string {
	return strings.NewReplacer("[", "[[]", "*", "[*]", "?", "[?]").Replace(path)
}
