package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-io/leat/internal/lifecycle"
)

// trace is what happened, in order. Parts run one at a time here, so it needs no lock.
type trace []string

func (tr *trace) part(name string, startFor time.Duration) lifecycle.Part {
	return lifecycle.Part{Name: name, Run: func(ctx context.Context, ready func()) error {
		time.Sleep(startFor)
		*tr = append(*tr, "start "+name)
		ready()
		<-ctx.Done()
		time.Sleep(startFor)
		*tr = append(*tr, "stop "+name)
		return ctx.Err()
	}}
}

func TestPartsStartInOrderAndStopInReverse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tr trace
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		err := lifecycle.Run(ctx, []lifecycle.Part{tr.part("log", time.Minute), tr.part("export", time.Second), tr.part("door", 0)},
			func() { tr = append(tr, "started") })
		want := trace{"start log", "start export", "start door", "started", "stop door", "stop export", "stop log"}
		if err != nil || !slices.Equal(tr, want) {
			t.Errorf("%v, %v", tr, err)
		}
	})
}

func TestAPartThatFailsEndsTheOthers(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		run  func(ctx context.Context, ready func()) error
		want string
	}{
		"while starting": {func(context.Context, func()) error { return broken }, "start log, stop log"},
		"while running":  {func(_ context.Context, ready func()) error { ready(); return broken }, "start log, stop log"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var tr trace
				err := lifecycle.Run(t.Context(), []lifecycle.Part{tr.part("log", 0), {Name: "door", Run: c.run}}, func() {})
				if !errors.Is(err, broken) || !strings.HasPrefix(fmt.Sprint(err), "door: ") || strings.Join(tr, ", ") != c.want {
					t.Errorf("%v, %v", tr, err)
				}
			})
		})
	}
}

func TestNothingStartsOnceStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tr trace
		ctx, cancel := context.WithCancel(t.Context())
		first := tr.part("first", 0)
		run := first.Run
		first.Run = func(ctx context.Context, ready func()) error { cancel(); return run(ctx, ready) }
		err := lifecycle.Run(ctx, []lifecycle.Part{first, tr.part("second", 0)}, func() { t.Error("started") })
		if err != nil || strings.Join(tr, ", ") != "start first, stop first" {
			t.Errorf("%v, %v", tr, err)
		}
	})
}
