package sim_test

import (
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/leat-io/leat/internal/sim"
)

func TestProcessFiguresOfThisProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("figures come from /proc")
	}
	before, err := sim.CPUTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for after := before; after < before+20*time.Millisecond; { // burns processor time until it shows
		if after, err = sim.CPUTime(os.Getpid()); err != nil {
			t.Fatal(err)
		}
	}
	rss, err := sim.ResidentBytes(os.Getpid())
	peak, peakErr := sim.PeakResidentBytes(os.Getpid())
	if err != nil || peakErr != nil || rss < 1<<20 || peak < rss/2 {
		t.Errorf("resident %d, peak %d: %v %v", rss, peak, err, peakErr)
	}
}
