package query_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/query"
	"github.com/leat-io/leat/internal/record"
)

// BenchmarkSelectOne is what a query costs before it does anything: process, confinement, DuckDB.
func BenchmarkSelectOne(b *testing.B) {
	n := newNode(b)
	for b.Loop() {
		if _, err := n.engine.Query(b.Context(), query.Request{SQL: "SELECT 1"}, &bytes.Buffer{}, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTail asks for an average over 200,000 records that are still in the stream; 500 more arrive each time.
func BenchmarkTail(b *testing.B) {
	n := newNode(b)
	id := n.table("samples", lake.Portable)
	at := noon
	put := func(count int) {
		recs := make([]record.Record, count)
		for i := range recs {
			at = at.Add(time.Millisecond)
			recs[i] = record.Record{Time: at.UnixNano(), Key: []byte("plant/1/temp"), Payload: []byte("21.5")}
		}
		n.putAll(id, recs...)
	}
	for range 20 {
		put(10000)
	}
	for b.Loop() {
		put(500)
		if _, err := n.engine.Query(b.Context(), query.Request{SQL: "SELECT avg(value) FROM samples"}, &bytes.Buffer{}, nil); err != nil {
			b.Fatal(err)
		}
	}
}
