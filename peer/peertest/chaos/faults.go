//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weircache/weir/peer/peertest"
)

// kind is a kind of fault.
type kind string

// The kinds. Only one fault at a time affects a process; faults of the other kinds overlap.
const (
	cut    kind = "cut"    // a node's cable is unplugged
	oneWay kind = "oneway" // everything that one node sends to another or to all, or that all send to it, is lost
	split  kind = "split"  // two nodes are on the other side of a split
	flap   kind = "flap"   // a node's cable is unplugged and plugged in again a few times
	stop   kind = "stop"   // a process is stopped (SIGSTOP), and continued later
	starve kind = "starve" // a process runs for a fifth of the time: it is stopped and continued ten times a second
	kill   kind = "kill"   // a process is killed (SIGKILL), and started again
	rename kind = "rename" // a process is killed, and another one with a new name starts at its address
	leave  kind = "leave"  // a node leaves gracefully and starts again
	joins  kind = "joins"  // two nodes leave at once, gracefully or not, and start at once
	origin kind = "origin" // the origin is slow, hangs or fails
)

// kinds lists all of them.
var kinds = []kind{cut, oneWay, split, flap, stop, starve, kill, rename, leave, joins, origin}

// parseKinds parses a comma-separated list of kinds, or of kinds to leave out, each with a leading minus.
func parseKinds(list string) ([]kind, error) {
	if list == "all" {
		return kinds, nil
	}
	var only, out []kind
	for word := range strings.SplitSeq(list, ",") {
		name, without := strings.CutPrefix(word, "-")
		if !slices.Contains(kinds, kind(name)) {
			return nil, fmt.Errorf("-faults: there is no kind %q: give all, some of %v with commas, or some with a minus before each", word, kinds)
		}
		if without {
			out = append(out, kind(name))
		} else {
			only = append(only, kind(name))
		}
	}
	switch {
	case len(only) > 0 && len(out) > 0:
		return nil, fmt.Errorf("-faults %s: either kinds, or kinds with a minus", list)
	case len(only) == 0:
		only = slices.DeleteFunc(slices.Clone(kinds), func(k kind) bool { return slices.Contains(out, k) })
	}
	return only, nil
}

// faults injects faults and counts them.
type faults struct {
	*lab
	kinds   []kind
	hold    time.Duration // the maximum duration of a fault
	witness int           // the host of the node that is never killed or stopped
	dice    *rand.Rand

	mu    sync.Mutex // guards the rest
	count map[kind]int
	names int // names that have gone for good
}

// usual is the origin's moods during faults.
var usual = peertest.Moods{Slow: 0.05, Fail: 0.05, Hang: 0.01, Overrun: 0.01, Panic: 0.005}

// run injects faults for d. It returns once all of them have ended and all processes are up.
func (f *faults) run(ctx context.Context, d time.Duration) error {
	f.origin.SetMoods(usual)
	var wg sync.WaitGroup
	for end := time.Now().Add(d); time.Now().Before(end) && ctx.Err() == nil; {
		k := f.kinds[f.dice.IntN(len(f.kinds))]
		own := rand.New(rand.NewPCG(f.dice.Uint64(), f.dice.Uint64()))
		wg.Go(func() { f.one(ctx, k, own) })
		sleep(ctx, 500*time.Millisecond+time.Duration(f.dice.Int64N(int64(4*time.Second))))
	}
	wg.Wait()
	f.origin.SetMoods(peertest.Moods{})
	f.history.Note("the faults end")
	return f.failed()
}

// one injects one fault and returns when it is over.
func (f *faults) one(ctx context.Context, k kind, dice *rand.Rand) {
	i, j := dice.IntN(len(f.procs)), dice.IntN(len(f.procs))
	for j == i {
		j = dice.IntN(len(f.procs))
	}
	hold := 300*time.Millisecond + time.Duration(dice.Int64N(dice.Int64N(int64(f.hold))+1))
	switch k {
	case cut:
		f.during(ctx, k, hold, f.cut(i), "n%d's cable is out", i)
	case oneWay:
		switch dice.IntN(3) {
		case 0:
			f.during(ctx, k, hold, f.cutOneWay([]int{i}, []int{j}), "n%d is not heard by n%d", i, j)
		case 1:
			f.during(ctx, k, hold, f.cutOneWay([]int{i}, f.others(i)), "n%d is not heard", i)
		default:
			f.during(ctx, k, hold, f.cutOneWay(f.others(i), []int{i}), "n%d hears nobody", i)
		}
	case split:
		f.during(ctx, k, hold, f.split(i, j), "n%d and n%d are on the other side of a split", i, j)
	case flap:
		f.note(k, 0, "n%d's cable is out and in again", i)
		for range 2 + dice.IntN(5) {
			undo := f.cut(i)
			sleep(ctx, 100*time.Millisecond+time.Duration(dice.Int64N(int64(1500*time.Millisecond))))
			undo()
			sleep(ctx, 100*time.Millisecond+time.Duration(dice.Int64N(int64(1500*time.Millisecond))))
		}
	case origin:
		moods := []peertest.Moods{{Slow: 0.9}, {Hang: 0.5, Overrun: 0.2, Slow: 0.3}, {Fail: 0.9, Slow: 0.1}}
		m := moods[dice.IntN(len(moods))]
		f.origin.SetMoods(m)
		f.during(ctx, k, hold, func() { f.origin.SetMoods(usual) }, "the origin is ill: %+v", m)
	default:
		f.ofProcess(ctx, k, hold, dice, i, j)
	}
}

// during records a fault that has begun, and ends it after hold.
func (f *faults) during(ctx context.Context, k kind, hold time.Duration, undo func(), what string, args ...any) {
	f.note(k, hold, what, args...)
	sleep(ctx, hold)
	undo()
	f.history.Note("over: "+what, args...)
}

func (f *faults) note(k kind, hold time.Duration, what string, args ...any) {
	f.mu.Lock()
	f.count[k]++
	f.mu.Unlock()
	f.history.Note(what, args...)
	f.log("%-6s "+what+" (%v)", append(append([]any{k}, args...), hold.Round(10*time.Millisecond))...)
}

// ofProcess injects a fault of the first host's process, and with joins of the second host's as well. It does nothing if
// another fault has the process, or if the fault would end the witness.
func (f *faults) ofProcess(ctx context.Context, k kind, hold time.Duration, dice *rand.Rand, hosts ...int) {
	if k != joins {
		hosts = hosts[:1]
	}
	ends := k != stop && k != starve
	for _, i := range hosts {
		p := f.procs[i]
		if ends && i == f.witness || !p.take() {
			return
		}
		defer p.release()
	}
	p := f.procs[hosts[0]]
	away := time.Duration(dice.Int64N(int64(6 * time.Second)))
	switch k {
	case stop:
		f.try(p.halt(false))
		f.during(ctx, k, hold, func() { f.try(p.resume()) }, "%s is stopped", p.called())
	case starve:
		f.note(k, hold, "%s starves", p.called())
		for end := time.Now().Add(hold); time.Now().Before(end) && ctx.Err() == nil; {
			f.try(p.halt(true))
			sleep(ctx, 80*time.Millisecond)
			f.try(p.resume())
			sleep(ctx, 20*time.Millisecond)
		}
		f.history.Note("over: %s starves", p.called())
	case kill:
		f.note(k, away, "%s is killed", p.called())
		f.end(p, (*process).kill)
		sleep(ctx, away)
		f.try(f.start(p, p.called()))
	case rename:
		f.note(k, away, "%s is killed and gets a new name", p.called())
		f.end(p, (*process).kill)
		sleep(ctx, away)
		f.try(f.start(p, f.newName(p)))
	case leave:
		f.note(k, away, "%s leaves", p.called())
		f.end(p, (*process).leave)
		sleep(ctx, away)
		f.try(f.start(p, p.called()))
	case joins:
		q := f.procs[hosts[1]]
		f.note(k, away, "%s and %s go at once", p.called(), q.called())
		how := [](func(*process) func()){
			func(p *process) func() { return func() { f.end(p, (*process).leave) } },
			func(p *process) func() { return func() { f.end(p, (*process).kill) } },
		}[dice.IntN(2)]
		f.together(how(p), how(q))
		sleep(ctx, away)
		names := []string{p.called(), q.called()}
		if dice.IntN(2) == 0 {
			names = []string{f.newName(p), f.newName(q)}
		}
		f.together(func() { f.try(f.start(p, names[0])) }, func() { f.try(f.start(q, names[1])) })
	}
}

func (f *faults) together(list ...func()) {
	var wg sync.WaitGroup
	for _, one := range list {
		wg.Go(one)
	}
	wg.Wait()
}

func (f *faults) try(err error) {
	if err != nil {
		f.problem(err)
	}
}

// newName returns a name that the process has never had.
func (f *faults) newName(p *process) string {
	f.mu.Lock()
	f.names++
	f.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf("n%d-%d", p.host, p.incarnation+1)
}
