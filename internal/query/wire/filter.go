package wire

// Filter is a condition on the partition columns and on ts that every row a statement reads from a table fulfils. It
// may be weaker than the statement's own condition, never stronger: a file that May rejects has no row of interest.
//
// Op is one of
//
//	true            nothing is known
//	and, or         of Args
//	= < <= > >=     Column against Value (an INTEGER partition column) or, for ts and date, against Micros
//
// The column "ts" is the event time; "date" is its day, the form of CAST(ts AS DATE).
type Filter struct {
	Op     string   `json:"op"`
	Args   []Filter `json:"args,omitempty"`
	Column string   `json:"column,omitempty"`
	Value  float64  `json:"value,omitempty"`
	Micros int64    `json:"micros,omitempty"` // since 1970 UTC
}

// Always is the filter that knows nothing.
func Always() Filter { return Filter{Op: "true"} }

// Times of rows, and names of columns that stand for them in a Filter.
const (
	ColumnTime = "ts"
	ColumnDate = "date"
)

const microsPerDay = 86_400_000_000

// Extent is what is known about the rows of a file.
type Extent struct {
	Partition map[string]int64 // partition columns with INTEGER values
	Min, Max  int64            // of ts, microseconds since 1970 UTC, both included
	HasTime   bool
}

// maxDepth bounds how deep filters nest; a deeper one is taken to know nothing.
const maxDepth = 200

// May reports whether rows of that extent can fulfil the filter.
func (f Filter) May(e Extent) bool { return f.may(e, maxDepth) }

func (f Filter) may(e Extent, depth int) bool {
	if depth == 0 {
		return true
	}
	switch f.Op {
	case "and":
		for _, a := range f.Args {
			if !a.may(e, depth-1) {
				return false
			}
		}
		return true
	case "or":
		for _, a := range f.Args {
			if a.may(e, depth-1) {
				return true
			}
		}
		return len(f.Args) == 0
	case "=", "<", "<=", ">", ">=":
		return f.compare(e)
	}
	return true
}

func (f Filter) compare(e Extent) bool {
	switch f.Column {
	case ColumnTime:
		return !e.HasTime || overlaps(f.Op, e.Min, e.Max, f.Micros)
	case ColumnDate:
		return !e.HasTime || overlaps(f.Op, floorDay(e.Min), floorDay(e.Max), f.Micros)
	}
	v, ok := e.Partition[f.Column]
	if !ok {
		return true
	}
	return holds(f.Op, float64(v), f.Value)
}

// overlaps reports whether some value in [lo, hi] can fulfil "value op bound". Strict comparisons count as the others:
// extents are rounded to microseconds.
func overlaps(op string, lo, hi, bound int64) bool {
	switch op {
	case "<", "<=":
		return lo <= bound
	case ">", ">=":
		return hi >= bound
	}
	return lo <= bound && bound <= hi
}

func holds(op string, v, bound float64) bool {
	switch op {
	case "<":
		return v < bound
	case "<=":
		return v <= bound
	case ">":
		return v > bound
	case ">=":
		return v >= bound
	}
	return v == bound
}

func floorDay(us int64) int64 {
	r := us % microsPerDay
	if r < 0 {
		r += microsPerDay
	}
	return us - r
}
