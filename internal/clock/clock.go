// Package clock reads the wall clock and the monotonic clock together and says whether the wall clock can be believed.
//
// Small boxes start in 1970, or at the time of their last shutdown, until NTP answers. A record that arrives in that
// window keeps its monotonic time and the id of the boot; once the wall clock is trusted, an Anchor turns both into
// the true time. The wall clock is trusted when it is not before the floor: the newest time leat has ever seen
// (SetFloor) and the day this program was made.
package clock

import (
	"crypto/rand"
	"encoding/binary"
	"os"
	"strings"
	"sync"
	"time"
)

// epochFloor is a wall-clock time, in nanoseconds, before which no clock is believed: this program did not exist.
const epochFloor = 1_788_220_800_000_000_000 // 2026-09-01T00:00:00Z

// Reading is both clocks at one instant.
type Reading struct {
	Wall    int64  // nanoseconds since 1970 UTC, as the box believes
	Mono    int64  // nanoseconds since boot (or since the process started, where the system does not tell)
	Boot    uint64 // the boot both belong to
	Trusted bool   // whether Wall can be believed
}

// Anchor ties a boot's monotonic clock to wall time: wall = Offset + mono. Valid once the clock was trusted.
type Anchor struct {
	Boot   uint64
	Offset int64
}

// Clock gives readings. Implementations are safe for concurrent use.
type Clock interface {
	Read() Reading
}

// System is the machine's clock.
type System struct {
	boot  uint64
	start time.Time
	mono0 int64
	wall  func() time.Time

	mu    sync.Mutex // guards floor
	floor int64
}

// NewSystem returns the machine's clock. Without a kernel that tells its boot id, each process counts as a boot.
func NewSystem() *System {
	c := &System{boot: bootID(), start: time.Now(), wall: time.Now, floor: epochFloor}
	c.mono0 = uptime()
	return c
}

// SetFloor raises the floor to the newest time known to have passed: a wall clock before it (less a day, for clocks
// that were ahead and got corrected) is not believed.
func (c *System) SetFloor(wall int64) {
	const slack = int64(24 * time.Hour)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.floor = max(c.floor, wall-slack)
}

// Read returns both clocks now.
func (c *System) Read() Reading {
	now := c.wall()
	c.mu.Lock()
	floor := c.floor
	c.mu.Unlock()
	wall := now.UnixNano()
	return Reading{Wall: wall, Mono: c.mono0 + int64(time.Since(c.start)), Boot: c.boot, Trusted: wall >= floor}
}

// AnchorOf is the anchor a trusted reading gives; ok is false when the reading is not trusted.
func AnchorOf(r Reading) (a Anchor, ok bool) {
	return Anchor{Boot: r.Boot, Offset: r.Wall - r.Mono}, r.Trusted
}

func bootID() uint64 {
	if b, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		s := strings.ReplaceAll(strings.TrimSpace(string(b)), "-", "")
		var id uint64
		for _, c := range []byte(s) {
			id = id*1099511628211 ^ uint64(c)
		}
		if id != 0 {
			return id
		}
	}
	var b [8]byte
	rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:]) | 1
}

// uptime is nanoseconds since boot, or 0 where the system does not tell.
func uptime() int64 {
	b, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0
	}
	field, _, _ := strings.Cut(string(b), " ")
	d, err := time.ParseDuration(field + "s")
	if err != nil {
		return 0
	}
	return int64(d)
}

// Fake is a clock that tests set by hand.
type Fake struct {
	mu sync.Mutex // guards r
	r  Reading
}

// NewFake returns a fake clock that reads r.
func NewFake(r Reading) *Fake { return &Fake{r: r} }

// Read returns the reading last set.
func (f *Fake) Read() Reading {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.r
}

// Set replaces the reading.
func (f *Fake) Set(r Reading) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.r = r
}

// Advance moves both clocks forward by d.
func (f *Fake) Advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.r.Wall += int64(d)
	f.r.Mono += int64(d)
}
