package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// SignalKind is what a simulated signal behaves like.
type SignalKind uint8

// The kinds of signal, as they occur in a plant: most of what sensors send is quiet.
const (
	Walk     SignalKind = iota // random walk with steps of 0.01: a pressure, a level
	Slow                       // temperature in steps of 0.1 that changes every few seconds
	Sine                       // a wave with noise, two decimals: a vibration, a current
	Status                     // a small integer that changes every 500 ticks on average
	Constant                   // a set point
	Counter                    // a total that grows by about three each tick
	Single                     // a wave with noise that was a float32: digits all the way down
)

// kindNames belong to SignalKind.
var kindNames = [...]string{"walk", "slow", "sine", "status", "constant", "counter", "single"}

// String is the kind's name, as it appears in signal names.
func (k SignalKind) String() string { return kindNames[k] }

// Signal is one simulated sensor.
type Signal struct {
	Name string // "walk-07"
	Kind SignalKind
}

// signalCounts is the reference mix: 125 signals.
var signalCounts = [...]struct {
	kind SignalKind
	n    int
}{{Walk, 40}, {Slow, 25}, {Sine, 20}, {Status, 15}, {Constant, 5}, {Counter, 10}, {Single, 10}}

// Signals generates the reference set: equal seeds give equal values, on every machine. It does not read the clock:
// a tick is whatever period its caller gives it (40 ms in the reference set). It is not safe for concurrent use.
type Signals struct {
	seed uint64
	list []Signal
	gens []generator
}

type generator struct {
	kind             SignalKind
	tick             int // of the value held
	value            float64
	rng              *rand.Rand
	mean, amp, omega float64
	phase, noise     float64
}

// NewSignals returns the 125 signals of the reference set.
func NewSignals(seed uint64) *Signals {
	s := &Signals{seed: seed}
	for _, c := range signalCounts {
		for i := range c.n {
			s.list = append(s.list, Signal{Name: fmt.Sprintf("%s-%02d", c.kind, i+1), Kind: c.kind})
		}
	}
	s.gens = make([]generator, len(s.list))
	for i := range s.gens {
		s.gens[i].restart(seed, uint64(i), s.list[i].Kind)
	}
	return s
}

// List returns the signals, in the order of their numbers. It must not be changed.
func (s *Signals) List() []Signal { return s.list }

// Value is the value of a signal (by its number in List) at a tick from 0. Going forward one tick is cheap; going back
// computes the signal from its beginning again.
func (s *Signals) Value(signal, tick int) float64 {
	g := &s.gens[signal]
	if tick < g.tick {
		g.restart(s.seed, uint64(signal), g.kind)
	}
	for g.tick < tick {
		g.tick++
		g.step()
	}
	return g.value
}

func (g *generator) restart(seed, signal uint64, kind SignalKind) {
	*g = generator{kind: kind, rng: rand.New(rand.NewPCG(seed, signal))}
	switch kind {
	case Walk:
		g.value = round(20+60*g.rng.Float64(), 100)
	case Slow, Constant:
		g.value = round(15+20*g.rng.Float64(), 10)
	case Sine, Single:
		g.mean, g.amp, g.noise = 20+10*g.rng.Float64(), 5+5*g.rng.Float64(), 0.03
		if kind == Single {
			g.noise = 0.1
		}
		g.omega, g.phase = 2*math.Pi/(250+1000*g.rng.Float64()), 2*math.Pi*g.rng.Float64()
		g.step()
	case Status:
		g.value = float64(g.rng.IntN(5))
	case Counter:
		g.value = float64(g.rng.IntN(1_000_000))
	}
}

func (g *generator) step() {
	switch g.kind {
	case Walk:
		g.value = round(g.value+0.03*g.rng.NormFloat64(), 100)
	case Slow:
		if g.rng.IntN(50) == 0 {
			g.value = round(g.value+0.1*float64(2*g.rng.IntN(2)-1), 10)
		}
	case Sine, Single:
		v := g.mean + g.amp*math.Sin(g.omega*float64(g.tick)+g.phase) + g.noise*g.rng.NormFloat64()
		if g.kind == Sine {
			v = round(v, 100)
		} else {
			v = float64(float32(v))
		}
		g.value = v
	case Status:
		if g.rng.IntN(500) == 0 {
			g.value = float64(g.rng.IntN(5))
		}
	case Counter:
		g.value += float64(poisson3(g.rng))
	}
}

// round returns v in units of 1/scale, by division: the nearest float64 to the decimal, as a sensor's text would parse.
func round(v, scale float64) float64 { return math.Round(v*scale) / scale }

// poisson3 draws from a Poisson distribution with mean 3 (Knuth's method: multiply uniforms until below e^-3).
func poisson3(r *rand.Rand) int {
	limit := math.Exp(-3)
	n, p := 0, r.Float64()
	for p > limit {
		n++
		p *= r.Float64()
	}
	return n
}
