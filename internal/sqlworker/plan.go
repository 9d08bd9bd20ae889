package sqlworker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/leat-io/leat/internal/query/wire"
)

// The planner finds, in the syntax tree of a statement, the tables it names and what its WHERE clauses say about their
// partition columns and ts. It must never claim more than holds, so what it does not understand it takes to be true,
// and a table that is named anywhere without a WHERE clause of its own is read whole.
//
// A WHERE clause speaks for a table that stands in the FROM clause beside it, alone or joined: rows that do not fulfil
// it never reach the result, not even as "no match" of an outer join, because a comparison with NULL is not true. That
// does not hold for ASOF and positional joins, where removing one row changes which others are matched; their tables,
// and those of semi and anti joins, which WHERE cannot name, are read whole.
type planner struct {
	tables map[string]*tableFacts // by name in lower case
	refs   map[string][]condition // one for each time the table is named
	values []value                // constants to be evaluated
	all    bool                   // the statement may read any table: it holds SQL in texts
}

// tableFacts is what the planner must know of a table.
type tableFacts struct {
	name    string
	integer map[string]bool // partition columns of type INTEGER
	columns map[string]bool // all columns, in lower case
}

// condition is a wire.Filter whose constants are not evaluated yet.
type condition struct {
	op     string
	args   []condition
	column string
	value  int // index into values
}

// value is a constant expression of the statement.
type value struct {
	expr   any // its syntax tree
	moment bool
}

// maxValues bounds how many constants of a statement are looked at.
const maxValues = 256

func always() condition { return condition{op: "true"} }

func newPlanner(req *wire.Request) *planner {
	p := &planner{tables: map[string]*tableFacts{}, refs: map[string][]condition{}}
	for _, t := range req.Tables {
		facts := &tableFacts{name: t.Name, integer: map[string]bool{}, columns: map[string]bool{}}
		for _, c := range t.Columns {
			facts.columns[strings.ToLower(c.Name)] = true
		}
		for _, h := range req.Hive {
			facts.columns[strings.ToLower(h.Name)] = true
			facts.integer[strings.ToLower(h.Name)] = h.Type == "INTEGER"
		}
		p.tables[strings.ToLower(t.Name)] = facts
	}
	return p
}

// read walks the whole statement.
func (p *planner) read(tree json.RawMessage) error {
	dec := json.NewDecoder(bytes.NewReader(tree))
	dec.UseNumber()
	var root any
	if err := dec.Decode(&root); err != nil {
		return fmt.Errorf("decode syntax tree: %w", err)
	}
	p.walk(root)
	return nil
}

// node is an object of the syntax tree.
type node = map[string]any

func text(n node, key string) string {
	s, _ := n[key].(string)
	return s
}

func child(n node, key string) node {
	c, _ := n[key].(node)
	return c
}

func children(n node, key string) []any {
	c, _ := n[key].([]any)
	return c
}

func (p *planner) walk(v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			p.walk(e)
		}
	case node:
		switch text(v, "type") {
		case "SELECT_NODE":
			p.selectNode(v)
			return
		case "FUNCTION":
			p.all = p.all || hidesTables(text(v, "function_name"))
		}
		p.name(v, always()) // BASE_TABLE, and whatever else names a table
		for _, e := range v {
			p.walk(e)
		}
	}
}

// name notes that the statement names a table of ours, with what is known about the rows it reads there.
func (p *planner) name(ref node, c condition) {
	key := strings.ToLower(text(ref, "table_name"))
	if p.tables[key] != nil {
		p.refs[key] = append(p.refs[key], c)
	}
}

// hidesTables lists the functions that run SQL given as text, which the planner does not look into.
func hidesTables(function string) bool {
	return slices.Contains([]string{"query", "query_table", "json_execute_serialized_sql"}, strings.ToLower(function))
}

// source is one entry of a FROM clause.
type source struct {
	ref   node // nil when WHERE says nothing about it
	alias string
	facts *tableFacts
}

func (p *planner) selectNode(n node) {
	var from []source
	p.sources(n["from_table"], &from)
	where := child(n, "where_clause")
	for _, s := range from {
		if s.ref != nil {
			p.name(s.ref, p.condition(where, scope{s, from}))
		}
	}
	for key, v := range n {
		if key != "from_table" {
			p.walk(v)
		}
	}
}

// sources lists the entries of a FROM clause and walks what lies in it beside them.
func (p *planner) sources(v any, out *[]source) {
	n, ok := v.(node)
	if !ok {
		return
	}
	switch kind := text(n, "type"); {
	case kind == "EMPTY":
		return
	case kind == "BASE_TABLE" && plain(n) && p.tables[strings.ToLower(text(n, "table_name"))] != nil:
		facts := p.tables[strings.ToLower(text(n, "table_name"))]
		alias := text(n, "alias")
		if alias == "" {
			alias = text(n, "table_name")
		}
		*out = append(*out, source{ref: n, alias: strings.ToLower(alias), facts: facts})
		return
	case kind == "JOIN" && commutes(n):
		p.sources(n["left"], out)
		p.sources(n["right"], out)
		p.walk(n["condition"])
		return
	}
	p.walk(n)
	*out = append(*out, source{alias: strings.ToLower(text(n, "alias"))})
	if text(n, "type") == "JOIN" {
		// Its tables were walked, so they are read whole; two more names keep unqualified columns from being understood.
		*out = append(*out, source{}, source{})
	}
}

// plain reports whether a table is named as it is: no sample, no renamed columns, no time travel, no other catalog.
func plain(n node) bool {
	schema, catalog := text(n, "schema_name"), text(n, "catalog_name")
	return n["sample"] == nil && n["at_clause"] == nil && len(children(n, "column_name_alias")) == 0 &&
		(schema == "" || schema == "main") && (catalog == "" || catalog == "memory")
}

// commutes reports whether rows that WHERE rejects may be removed before the join.
func commutes(n node) bool {
	ref := text(n, "ref_type")
	join := text(n, "join_type")
	return slices.Contains([]string{"REGULAR", "CROSS", "NATURAL"}, ref) &&
		slices.Contains([]string{"INNER", "LEFT", "RIGHT", "FULL", "OUTER"}, join)
}

// scope is where a column name of a WHERE clause is looked up, from one table's point of view.
type scope struct {
	own  source
	from []source
}

// column is the name of the partition column, or ts or date, that the expression is, or "".
func (s scope) column(v any) string {
	n, ok := v.(node)
	if !ok {
		return ""
	}
	if text(n, "type") == "OPERATOR_CAST" && n["try_cast"] == false {
		inner := s.column(n["child"])
		switch to := text(child(n, "cast_type"), "id"); {
		case inner == wire.ColumnTime && to == "DATE":
			return wire.ColumnDate
		case inner == wire.ColumnTime && (to == "TIMESTAMP" || to == "TIMESTAMP WITH TIME ZONE"):
			return wire.ColumnTime
		}
		return ""
	}
	if text(n, "type") != "COLUMN_REF" {
		return ""
	}
	var names []string
	for _, e := range children(n, "column_names") {
		name, _ := e.(string)
		names = append(names, strings.ToLower(name))
	}
	switch {
	case len(names) == 1 && len(s.from) == 1:
	case len(names) == 2 && names[0] == s.own.alias && s.unique():
		names = names[1:]
	default:
		return ""
	}
	if s.own.facts.integer[names[0]] || names[0] == wire.ColumnTime && s.own.facts.columns[wire.ColumnTime] {
		return names[0]
	}
	return ""
}

// unique reports whether no other entry of the FROM clause goes by the table's name.
func (s scope) unique() bool {
	n := 0
	for _, f := range s.from {
		if f.alias == s.own.alias {
			n++
		}
	}
	return n == 1
}

// comparisons maps the types of comparison to the operator, and to the operator with its sides exchanged.
func comparison(kind string) (op, flipped string) {
	switch kind {
	case "COMPARE_EQUAL":
		return "=", "="
	case "COMPARE_LESSTHAN":
		return "<", ">"
	case "COMPARE_LESSTHANOREQUALTO":
		return "<=", ">="
	case "COMPARE_GREATERTHAN":
		return ">", "<"
	case "COMPARE_GREATERTHANOREQUALTO":
		return ">=", "<="
	}
	return "", ""
}

// condition is what the expression says about the scope's own table.
func (p *planner) condition(n node, s scope) condition {
	kind := text(n, "type")
	switch kind {
	case "CONJUNCTION_AND", "CONJUNCTION_OR":
		c := condition{op: "and"}
		if kind == "CONJUNCTION_OR" {
			c.op = "or"
		}
		for _, e := range children(n, "children") {
			arg, _ := e.(node)
			c.args = append(c.args, p.condition(arg, s))
		}
		return c
	case "COMPARE_BETWEEN":
		return condition{op: "and", args: []condition{
			p.leaf(">=", n["input"], n["lower"], s),
			p.leaf("<=", n["input"], n["upper"], s),
		}}
	case "COMPARE_IN":
		list := children(n, "children")
		if len(list) < 2 {
			return always()
		}
		c := condition{op: "or"}
		for _, e := range list[1:] {
			c.args = append(c.args, p.leaf("=", list[0], e, s))
		}
		return c
	}
	if op, flipped := comparison(kind); op != "" {
		if s.column(n["left"]) != "" {
			return p.leaf(op, n["left"], n["right"], s)
		}
		return p.leaf(flipped, n["right"], n["left"], s)
	}
	return always()
}

// leaf is column op constant, or always when it is not that.
func (p *planner) leaf(op string, left, right any, s scope) condition {
	column := s.column(left)
	if column == "" || !constant(right, s.from) || len(p.values) >= maxValues {
		return always()
	}
	moment := column == wire.ColumnTime || column == wire.ColumnDate
	p.values = append(p.values, value{expr: right, moment: moment})
	return condition{op: op, column: column, value: len(p.values) - 1}
}

// constant reports whether the expression has the same value wherever it is evaluated in the transaction.
func constant(v any, from []source) bool {
	n, ok := v.(node)
	if !ok {
		return false
	}
	switch text(n, "class") {
	case "CONSTANT":
		return true
	case "CAST":
		return constant(n["child"], from)
	case "COLUMN_REF":
		return isToday(n, from)
	case "FUNCTION":
		if !pure(text(n, "function_name")) || text(n, "schema") != "" || n["filter"] != nil || n["distinct"] != false {
			return false
		}
		for _, e := range children(n, "children") {
			if !constant(e, from) {
				return false
			}
		}
		return true
	}
	return false
}

// isToday recognises current_date and its like, which the parser takes for columns, unless there may be such a column.
func isToday(n node, from []source) bool {
	names := children(n, "column_names")
	if len(names) != 1 {
		return false
	}
	name, _ := names[0].(string)
	name = strings.ToLower(name)
	if !slices.Contains([]string{"current_date", "current_timestamp", "localtimestamp"}, name) {
		return false
	}
	for _, s := range from {
		if s.facts == nil || s.facts.columns[name] {
			return false
		}
	}
	return true
}

// pure lists the functions that give the same value for the same arguments within a transaction.
func pure(function string) bool {
	return slices.Contains([]string{
		"+", "-", "*", "/", "//", "%", "now", "today", "current_date", "current_timestamp", "get_current_timestamp",
		"get_current_time", "transaction_timestamp", "localtimestamp", "current_localtimestamp", "date_trunc",
		"datetrunc", "date_add", "date_part", "datepart", "year", "month", "day", "make_date", "make_timestamp",
		"make_timestamptz", "to_timestamp", "epoch_ms", "epoch_us", "strptime", "to_years", "to_months", "to_weeks",
		"to_days", "to_hours", "to_minutes", "to_seconds", "to_milliseconds", "to_microseconds", "last_day", "timezone",
		"greatest", "least", "abs", "floor", "ceil", "round", "trunc",
	}, strings.ToLower(function))
}

// plan is the result, once the constants are known.
func (p *planner) plan(known []*constantValue) wire.Plan {
	var out wire.Plan
	if p.all {
		for key := range p.tables {
			p.refs[key] = append(p.refs[key], always())
		}
	}
	for _, key := range sortedKeys(p.refs) {
		f := wire.Filter{Op: "or"}
		for _, c := range p.refs[key] {
			f.Args = append(f.Args, c.filter(known))
		}
		out.Tables = append(out.Tables, wire.TablePlan{Name: p.tables[key].name, Filter: f})
	}
	return out
}

// constantValue is an evaluated constant.
type constantValue struct {
	number float64
	micros int64
}

func (c condition) filter(known []*constantValue) wire.Filter {
	switch c.op {
	case "true":
		return wire.Always()
	case "and", "or":
		f := wire.Filter{Op: c.op}
		for _, a := range c.args {
			f.Args = append(f.Args, a.filter(known))
		}
		return f
	}
	v := known[c.value]
	if v == nil {
		return wire.Always()
	}
	return wire.Filter{Op: c.op, Column: c.column, Value: v.number, Micros: v.micros}
}
