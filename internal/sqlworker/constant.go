package sqlworker

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// evaluate computes the planner's constants with DuckDB itself, in the transaction that will run the statement, so that
// now() is the same instant in both. What cannot be computed is nil: then nothing is known.
func (d *duck) evaluate(values []value) ([]*constantValue, error) {
	known := make([]*constantValue, len(values))
	for i, v := range values {
		expr, err := d.deparse(v.expr)
		if err != nil {
			return nil, err
		}
		if expr == "" {
			continue
		}
		// A text beside an INTEGER column is compared as INTEGER. The casts are in TRY, because an error would end
		// the transaction.
		sql := "SELECT TRY(CASE WHEN typeof(" + expr + ") = 'VARCHAR' THEN CAST(CAST(" + expr +
			" AS INTEGER) AS DOUBLE) ELSE CAST(" + expr + " AS DOUBLE) END)::VARCHAR"
		if v.moment {
			sql = "SELECT TRY(epoch_us(CAST(" + expr + " AS TIMESTAMP)))::VARCHAR"
		}
		row, err := d.texts(sql)
		if err != nil || row[0] == nil {
			continue // does not bind or has no such type: then the statement itself will say so, or it is no bound
		}
		known[i] = parseConstant(*row[0], v.moment)
	}
	return known, nil
}

func parseConstant(s string, moment bool) *constantValue {
	if moment {
		us, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil
		}
		return &constantValue{micros: us}
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f != f {
		return nil
	}
	return &constantValue{number: f}
}

// deparse turns the syntax tree of an expression back into SQL; "" when DuckDB cannot.
func (d *duck) deparse(expr any) (string, error) {
	tree, err := json.Marshal(map[string]any{
		"error": false,
		"statements": []any{map[string]any{"node": map[string]any{
			"type": "SELECT_NODE", "modifiers": []any{}, "cte_map": map[string]any{"map": []any{}},
			"select_list": []any{expr},
			"from_table": map[string]any{
				"type": "EMPTY", "alias": "", "sample": nil, "query_location": 0,
			},
			"where_clause": nil, "group_expressions": []any{}, "group_sets": []any{},
			"aggregate_handling": "STANDARD_HANDLING", "having": nil, "sample": nil, "qualify": nil,
		}, "named_param_map": []any{}}},
	})
	if err != nil {
		return "", err
	}
	row, err := d.texts("SELECT json_deserialize_sql(?::JSON)", string(tree))
	if err != nil || row[0] == nil {
		return "", nil //nolint:nilerr // then nothing is known about the constant
	}
	sql, ok := strings.CutPrefix(*row[0], "SELECT ")
	if !ok {
		return "", nil
	}
	return "(" + sql + ")", nil
}
