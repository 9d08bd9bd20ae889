package clock

import (
	"testing"
	"time"
)

func TestWallClockIsTrustedFromTheFloorOn(t *testing.T) {
	c := NewSystem()
	wall := time.Date(1970, 1, 1, 0, 3, 0, 0, time.UTC)
	c.wall = func() time.Time { return wall }
	if c.Read().Trusted {
		t.Error("1970 is believed")
	}
	wall = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	if !c.Read().Trusted {
		t.Error("a time after this program was made is not believed")
	}
	c.SetFloor(wall.Add(10 * 24 * time.Hour).UnixNano())
	if c.Read().Trusted {
		t.Error("a time ten days before the newest record is believed")
	}
	wall = wall.Add(10*24*time.Hour - time.Hour)
	if !c.Read().Trusted {
		t.Error("an hour before the newest record is not believed: clocks get corrected")
	}
	c.SetFloor(0)
	if !c.Read().Trusted {
		t.Error("a lower floor changed something")
	}
}

func TestMonotonicTimeGoesOnWhenTheWallClockIsSet(t *testing.T) {
	c := NewSystem()
	wall := time.Unix(100, 0)
	c.wall = func() time.Time { return wall }
	before := c.Read()
	wall = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	after := c.Read()
	if after.Mono < before.Mono || after.Boot != before.Boot || after.Boot == 0 {
		t.Errorf("%+v, then %+v", before, after)
	}
	if _, ok := AnchorOf(before); ok {
		t.Error("an anchor from a clock that is not trusted")
	}
	a, ok := AnchorOf(after)
	if !ok || a.Offset+after.Mono != after.Wall || a.Boot != after.Boot {
		t.Errorf("anchor %+v, %v of %+v", a, ok, after)
	}
	// What arrived before the clock was set happened a moment before it was.
	if at := time.Unix(0, a.Offset+before.Mono); wall.Sub(at) > time.Minute || wall.Before(at) {
		t.Errorf("re-stamped to %v", at)
	}
}
