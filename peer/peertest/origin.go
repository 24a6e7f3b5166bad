package peertest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/weircache/weir/tier"
)

// Moods configure the origin's misbehaviour: the shares, from 0 to 1, of loads that are slow, fail, hang until their
// context ends, hang beyond that, and panic.
type Moods struct {
	Slow, Fail, Hang, Overrun, Panic float64
}

// overrunFor is how long a load runs that does not end with its context.
const overrunFor = 4 * time.Second

var errOrigin = errors.New("the origin fails")

// An Origin holds a version of each key. It is safe for concurrent use.
type Origin struct {
	history *History
	overrun time.Duration // how long a load takes that does not end with its context

	mu       sync.Mutex // guards the rest
	dice     *rand.Rand
	moods    Moods
	versions map[string]uint64
	missing  map[string]bool // keys that currently have no value
	// long, if not 0, is the TTL that loaders give the values of LongLived keys.
	long time.Duration
}

// LongLived reports whether the loader gives the key's value its own TTL, in a cluster that has Options.LongTTL.
func LongLived(key string) bool { return key != "" && key[len(key)-1]%3 == 1 }

// NewOrigin returns an origin that records its loads in h. A load that does not end with its context takes overrun.
func NewOrigin(h *History, seed uint64, overrun time.Duration) *Origin {
	return &Origin{history: h, overrun: overrun, dice: rand.New(rand.NewPCG(seed, 0x0419)), versions: make(map[string]uint64), missing: make(map[string]bool)}
}

// SetMoods changes the behaviour of loads from now on.
func (o *Origin) SetMoods(m Moods) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.moods = m
}

// Write changes key, or with gone removes its value, and returns its new version.
func (o *Origin) Write(key string, gone bool) (version uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.versions[key]++
	o.missing[key] = gone
	return o.versions[key]
}

func (o *Origin) version(key string) (version uint64, gone bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.versions[key], o.missing[key]
}

// fate is what happens to a load.
type fate struct {
	delay         time.Duration
	hang, overrun bool
	fail, crash   bool
}

func (o *Origin) fate() (f fate) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f.delay = time.Duration(1+o.dice.IntN(40)) * time.Millisecond
	switch at := o.dice.Float64(); {
	case at < o.moods.Slow:
		f.delay *= 10
	case at < o.moods.Slow+o.moods.Fail:
		f.fail = true
	case at < o.moods.Slow+o.moods.Fail+o.moods.Hang:
		f.hang = true
	case at < o.moods.Slow+o.moods.Fail+o.moods.Hang+o.moods.Overrun:
		f.overrun = true
	case at < o.moods.Slow+o.moods.Fail+o.moods.Hang+o.moods.Overrun+o.moods.Panic:
		f.crash = true
	}
	return f
}

// Loader returns the loader of one start of a node; life ends with its process.
func (o *Origin) Loader(life context.Context, node string, incarnation int) tier.Loader[Value] {
	return func(ctx context.Context, fill *tier.Fill[Value]) (Value, error) {
		key, gone, outcome := fill.Key, false, Failed
		fill.Tag(TagOf(key))
		until, _ := ctx.Deadline()
		from, _ := ctx.Value(fromKey{}).(uint64)
		l := &Load{Key: key, Node: node, Incarnation: incarnation, Until: until, From: from}
		o.history.beginLoad(l, func() (version uint64) {
			version, gone = o.version(key)
			return version
		})
		defer func() { o.history.endLoad(l, outcome) }()
		v := Value{Key: key, Version: l.Version, Load: l.Began, At: l.BeganAt.UnixNano()}
		if o.long != 0 && LongLived(key) {
			v.TTL = o.long
			fill.SetTTL(o.long)
		}
		f := o.fate()
		enough := ctx.Done()
		if f.overrun {
			f.delay, enough = o.overrun, nil
		}
		t := time.NewTimer(f.delay)
		defer t.Stop()
		due := t.C
		if f.hang {
			due = nil
		}
		select {
		case <-due:
		case <-enough:
			return Value{}, ctx.Err()
		case <-life.Done():
			return Value{}, context.Cause(life)
		}
		switch {
		case f.crash:
			panic("the loader panics")
		case f.fail:
			return Value{}, errOrigin
		case gone:
			outcome = Missing
			return Value{}, tier.ErrNotFound
		}
		outcome = Loaded
		return v, nil
	}
}
