package lake_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/leat-io/leat/internal/lake"
	"github.com/leat-io/leat/internal/record"
)

func TestNodeIDFollowsTheMachine(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	box := lake.Machine{"board": {"b1"}, "disk": {"d1"}, "mac": {"m1", "m2"}}
	dir := newBench(t).dir
	first := must2(lake.LoadNode(dir, "", box, log))
	if len(first) != 12 {
		t.Errorf("id %q", first)
	}
	cases := []struct {
		name    string
		machine lake.Machine
		same    bool
	}{
		{"the same machine", box, true},
		{"nothing known now", lake.Machine{}, true},
		{"one interface left", lake.Machine{"board": {"b1"}, "mac": {"m2"}}, true},
		{"not asked as root", lake.Machine{"mac": {"m1"}}, true},
		{"card in another board", lake.Machine{"board": {"b2"}, "disk": {"d1"}}, false},
		{"image on another card", lake.Machine{"board": {"b1"}, "disk": {"d2"}}, false},
		{"other interfaces", lake.Machine{"board": {"b1"}, "mac": {"m3"}}, false},
	}
	kept := must2(dir.ReadFile("node"))
	for _, c := range cases {
		if err := dir.WriteFile("node", kept); err != nil {
			t.Fatal(err)
		}
		id := must2(lake.LoadNode(dir, "", c.machine, log))
		if (id == first) != c.same {
			t.Errorf("%s: id %s after %s", c.name, id, first)
		}
		if again := must2(lake.LoadNode(dir, "", c.machine, log)); again != id {
			t.Errorf("%s: id %s, then %s", c.name, id, again)
		}
	}
	if id := must2(lake.LoadNode(dir, "plant_7", box, log)); id != "plant_7" {
		t.Errorf("configured id became %s", id)
	}
}

func TestNodeFileThatCannotBeRead(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	dir := newBench(t).dir
	if err := os.WriteFile(filepath.Join(dir.Path(), "node"), []byte("{torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	id := must2(lake.LoadNode(dir, "", nil, log))
	if again := must2(lake.LoadNode(dir, "", nil, log)); len(id) != 12 || again != id {
		t.Errorf("ids %q, %q", id, again)
	}
	if err := os.WriteFile(filepath.Join(dir.Path(), "node"), []byte(`{"format":2,"id":"x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := lake.LoadNode(dir, "", nil, log); record.KindOf(err) != record.Invalid || record.HintOf(err) == "" {
		t.Errorf("newer format: %v", err)
	}
}

func TestThisMachineIsKnownAndSteady(t *testing.T) {
	a, b := lake.ReadMachine(), lake.ReadMachine()
	if len(a) == 0 || len(a) != len(b) {
		t.Errorf("machine %v, then %v", a, b)
	}
}
