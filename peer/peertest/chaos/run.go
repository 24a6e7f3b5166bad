//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/weircache/weir/peer/peertest"
	"github.com/weircache/weir/tier"
)

// settings are the parsed flags.
type settings struct {
	world
	seed    uint64
	length  time.Duration // of all faults
	round   time.Duration // of the faults between two checks of the whole cluster
	kinds   []kind
	hold    time.Duration
	keys    int
	clients int
	pace    time.Duration
}

// slack is how much an age may seem too high. All processes share one clock, but clocks have a granularity.
const slack = 100 * time.Millisecond

// late is how much an answer may exceed its deadline on a busy machine.
const late = time.Minute

func (s settings) rules() peertest.Rules {
	return peertest.Rules{
		Freshness: s.Freshness, Concurrency: s.Cap, Timeout: s.Timeout, Carry: 15 * time.Second,
		Patience: 24 * time.Hour, Slack: slack, Late: late, RealTime: true,
	}
}

// run is one run of chaos.
type run struct {
	settings
	*lab
	faults  *faults
	clients *clients
	first   StatusReply   // of the witness, before any fault
	slowest time.Duration // the longest time to one view after the faults of a round
}

// errBroken is returned by a run that has found and shown violations.
var errBroken = errors.New("a guarantee is broken")

// chaos performs a run and returns its error.
func chaos(ctx context.Context, s settings, log func(format string, args ...any)) (err error) {
	began := time.Now()
	stamped := func(format string, args ...any) {
		at := time.Since(began)
		log("%02d:%06.3f "+format, append([]any{int(at.Minutes()), (at % time.Minute).Seconds()}, args...)...)
	}
	l, err := newLab(s.seed, s.world, stamped)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	outside, err := tier.New(tier.Config[peertest.Value]{
		Namespace: namespace, Loader: l.origin.Loader(ctx, "outside", 1), Freshness: s.Freshness, NearBytes: -1, OwnedBytes: 1 << 20,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, outside.Close(context.WithoutCancel(ctx))) }()
	r := &run{
		settings: s, lab: l,
		faults: &faults{
			lab: l, kinds: s.kinds, hold: s.hold, witness: int(s.seed % uint64(s.Nodes)), dice: rand.New(rand.NewPCG(s.seed, 1)), count: make(map[kind]int),
		},
		clients: &clients{lab: l, keys: s.keys, perNode: s.clients, pace: s.pace, outside: outside},
	}
	log("seed %d: %d nodes, a cap of %d, loads of at most %v; %s", s.seed, s.Nodes, s.Cap, s.Timeout, s.Freshness)
	log("faults: %v; n%d is never killed", s.kinds, r.faults.witness)
	if err = r.rounds(ctx); err != nil && !errors.Is(err, errBroken) {
		l.problem(err)
		r.check() // its output may explain the error
	}
	r.report(log)
	return err
}

// rounds starts the nodes and plays rounds of faults until their time is over.
func (r *run) rounds(ctx context.Context) error {
	for _, p := range r.procs {
		if err := r.start(p, p.called()); err != nil {
			return err
		}
	}
	if err := r.converge(ctx); err != nil {
		return fmt.Errorf("before any fault: %w", err)
	}
	if err := r.witness(&r.first); err != nil {
		return err
	}
	own, cancel := context.WithCancel(ctx)
	wait := r.clients.run(own, r.seed)
	defer func() {
		cancel()
		for _, p := range r.procs { // after a failed run calls may hang
			r.end(p, (*process).kill)
		}
		wait()
	}()
	for left := r.length; left > 0 && ctx.Err() == nil; left -= r.round {
		if err := r.faults.run(ctx, min(left, r.round)); err != nil {
			return err
		}
		if r.check() {
			return errBroken
		}
		if err := r.converge(ctx); err != nil {
			return err
		}
		if err := r.grown(ctx); err != nil {
			return err
		}
		r.history.BeginCalm()
		sleep(ctx, 3*time.Second)
		r.history.EndCalm()
		if r.check() {
			return errBroken
		}
		if err := r.failed(); err != nil {
			return err
		}
	}
	cancel()
	wait()
	if _, err := r.settled(ctx, true, r.hosts()...); err != nil {
		return err
	}
	for _, p := range r.procs {
		r.end(p, (*process).shut)
	}
	if r.check() {
		return errBroken
	}
	return errors.Join(r.failed(), ctx.Err())
}

func (r *run) hosts() (all []int) {
	for i := range r.procs {
		all = append(all, i)
	}
	return all
}

// converge waits until all nodes have one view and all know the invalidations whose senders are up. An exchange may still
// be running when the views agree.
func (r *run) converge(ctx context.Context) error {
	began := time.Now()
	took, err := r.settled(ctx, false, r.hosts()...)
	if err != nil {
		return err
	}
	r.slowest = max(r.slowest, took)
	for {
		err := r.sweep(ctx)
		if err == nil {
			break
		}
		if time.Since(began) > 2*patience || ctx.Err() != nil || r.failed() != nil {
			return fmt.Errorf("%v after the faults: %w", time.Since(began).Round(time.Second), err)
		}
		sleep(ctx, 100*time.Millisecond)
	}
	r.lab.log("one view after %v, all invalidations everywhere after %v", took.Round(10*time.Millisecond), time.Since(began).Round(10*time.Millisecond))
	return nil
}

// sweep reads each key on each node and reports what is wrong once all faults are over.
func (r *run) sweep(ctx context.Context) error {
	from := r.history.Stamp()
	errs := make([]error, len(r.procs))
	var list []func()
	for i := range r.procs {
		list = append(list, func() {
			for k := 0; k < r.keys && ctx.Err() == nil; k++ {
				read := r.lab.read(i, &peertest.Read{Key: keyOf(k), MaxAge: tier.AnyAge}, 30*time.Second)
				switch {
				case read == nil:
					errs[i] = fmt.Errorf("n%d does not answer", i)
				case read.Err != nil && !errors.Is(read.Err, tier.ErrNotFound):
					errs[i] = fmt.Errorf("%s read %s: %w", read.Node, read.Key, read.Err)
				}
			}
		})
	}
	r.faults.together(list...)
	if old := r.history.Outdated(from); old != "" {
		errs = append(errs, errors.New(old))
	}
	return errors.Join(errs...)
}

// witness gets the status of the node that is never killed.
func (r *run) witness(s *StatusReply) error {
	p := r.procs[r.faults.witness]
	client := p.callable()
	if client == nil {
		return fmt.Errorf("%s is stopped", p.called())
	}
	return client.Call("Node.Status", StatusCall{Heap: true}, s)
}

// grown waits until the witness has about as many goroutines and as much heap as before any fault, whatever has come and
// gone. It returns an error if that does not happen.
func (r *run) grown(ctx context.Context) error {
	began := time.Now()
	for {
		var s StatusReply
		if err := r.witness(&s); err != nil {
			return err
		}
		goroutines, heap := r.first.Goroutines*3/2+20, r.first.Heap*3/2+16<<20
		if s.Goroutines <= goroutines && s.Heap <= heap {
			r.lab.log("n%d: %d goroutines, heap %.1f MiB (%d and %.1f before any fault)", r.faults.witness, s.Goroutines, mib(s.Heap), r.first.Goroutines, mib(r.first.Heap))
			return nil
		}
		if time.Since(began) > patience || ctx.Err() != nil {
			return fmt.Errorf("G11 is broken: n%d has %d goroutines and a heap of %.1f MiB; before any fault %d and %.1f; %d names have gone since",
				r.faults.witness, s.Goroutines, mib(s.Heap), r.first.Goroutines, mib(r.first.Heap), r.faults.names)
		}
		sleep(ctx, time.Second)
	}
}

func mib(n uint64) float64 { return float64(n) / (1 << 20) }

// check shows the violations in the history, and reports whether there are any.
func (r *run) check() bool {
	shown := make(map[string]bool)
	for _, v := range r.history.Check(r.rules()) {
		if !shown[v.Guarantee] {
			r.lab.log("%s is broken: %s\n%s", v.Guarantee, v.Text, excerpt(v.History))
		}
		shown[v.Guarantee] = true
	}
	if len(shown) > 0 {
		r.problem(fmt.Errorf("%w: %s", errBroken, strings.Join(slices.Sorted(maps.Keys(shown)), ", ")))
	}
	return len(shown) > 0
}

// excerpt cuts the middle out of a long history: the beginning shows where a value comes from, the end which nodes saw it.
func excerpt(history string) string {
	const head, tail = 25, 50
	lines := strings.Split(strings.TrimSpace(history), "\n")
	if len(lines) <= head+tail {
		return strings.Join(lines, "\n")
	}
	return strings.Join(slices.Concat(lines[:head], []string{fmt.Sprintf("          ... %d lines", len(lines)-head-tail)}, lines[len(lines)-tail:]), "\n")
}

// report summarises what was done and checked.
func (r *run) report(log func(format string, args ...any)) {
	f := r.history.Figures()
	total := 0
	for _, n := range r.faults.count {
		total += n
	}
	log("faults: %d %v; %d names have gone for good", total, r.faults.count, r.faults.names)
	log("checked: %d reads (%d with a token, %d got an error), %d loads, %d invalidations (%d confirmed, %d by all who were up)",
		f.Reads, f.WithToken, f.Failed, f.Loads, f.Invalidations, f.Confirmed, f.Whole)
	log("greatest true age %v of %v; latest answer %v after its deadline; at most %d loads at once of %d; one view within %v of the last fault",
		f.Oldest.Round(time.Millisecond), r.Freshness.Bound(), f.Latest.Round(time.Millisecond), f.Peak, r.Cap, r.slowest.Round(10*time.Millisecond))
	if err := r.failed(); err != nil {
		log("seed %d: %v", r.seed, err)
	} else {
		log("seed %d: no guarantee is broken", r.seed)
	}
}
