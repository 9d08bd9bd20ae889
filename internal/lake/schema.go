package lake

// Layout is the shape of a table.
type Layout uint8

// The layouts.
const (
	Portable Layout = iota // one row per signal and instant: ts, topic, signal, value, text and label columns
	Columns                // one row per message: ts, topic, label columns and a typed column per field
)

// Type is the type of a column.
type Type uint8

// The types of column.
const (
	Double Type = iota + 1
	Bigint
	Boolean
	Text
	JSON // text that is a JSON document
	Timestamp
	Binary
)

// TimeUnit is the resolution of a table's timestamps.
type TimeUnit uint8

// The resolutions. Auto starts with Milli and widens to Micro, for good, when an event time needs it.
const (
	Auto TimeUnit = iota
	Milli
	Micro
	Nano
)

// Column is one column of a table.
type Column struct {
	Name   string `json:"name" yaml:"name"`
	Type   Type   `json:"type" yaml:"type"`
	Source string `json:"source,omitempty" yaml:"source"` // the field's or label's own name, where it differs from Name
	Label  bool   `json:"label,omitempty" yaml:"label"`   // comes from a topic level or a static label
}

// TableSpec is a table as the configuration describes it.
type TableSpec struct {
	Name     string
	Layout   Layout
	Prefix   string   // of the table's keys; "" means Name + "/"
	Declared []Column // columns with a type fixed beforehand
}
