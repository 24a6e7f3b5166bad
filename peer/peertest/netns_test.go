//go:build linux

package peertest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/rpc"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/tier"
)

// read makes a recorded read of key on the i-th node, if it is callable.
func (l *lab) read(i int, key string, maxAge, timeout time.Duration) {
	p := l.procs[i]
	client := p.callable()
	if client == nil {
		return
	}
	r := &Read{Key: key, Node: p.name, MaxAge: maxAge}
	l.history.beginRead(r)
	var a ReadReply
	if !l.call(p, client, "Node.Read", ReadCall{key, maxAge, timeout}, &a) {
		return // the client died with its node
	}
	// Nothing ends while the process is stopped, and its clients are in it.
	r.Deadline = r.BeganAt.Add(timeout + p.stoppedSince(r.BeganAt))
	r.Value, r.Age, r.Source, r.Err = a.Value, a.Age, a.Source, failure(a.Failed)
	l.history.endRead(r)
}

// write writes key at the origin and invalidates it from the i-th node.
func (l *lab) write(i int, key string) {
	p := l.procs[i]
	client := p.callable()
	if client == nil {
		return
	}
	l.origin.write(key, false)
	inv := l.history.beginInvalidation(tier.Change{Keys: []string{key}}, p.name, nil)
	up := l.up()
	var a InvalidateReply
	if !l.call(p, client, "Node.Invalidate", key, &a) {
		return
	}
	whole := contains(a.Before, up) && contains(a.After, l.up())
	l.history.endInvalidation(inv, tier.Token{}, whole, failure(a.Failed))
}

// call reports whether the process has answered. It may die only of being killed.
func (l *lab) call(p *process, client *rpc.Client, method string, args, reply any) bool {
	err := client.Call(method, args, reply)
	if err != nil && p.callable() == client {
		l.Errorf("%s: %s: %v", p.name, method, err)
	}
	return err == nil
}

func failure(text string) error {
	if text == "" {
		return nil
	}
	return errors.New(text)
}

func contains(all, some []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

// up returns the names of the processes that run, stopped ones too.
func (l *lab) up() (names []string) {
	for _, p := range l.procs {
		p.mu.Lock()
		if p.up {
			names = append(names, p.name)
		}
		p.mu.Unlock()
	}
	return names
}

// client reads and sometimes writes until ctx ends.
func (l *lab) client(ctx context.Context, i int, dice *rand.Rand) {
	for ctx.Err() == nil {
		key := fmt.Sprintf("k%d", min(dice.IntN(30), dice.IntN(30))) // some are hotter
		switch at := dice.Float64(); {
		case at < 0.03:
			l.write(i, key)
		case at < 0.15:
			l.read(i, key, 0, time.Second)
		case at < 0.2:
			l.read(i, key, time.Duration(dice.Int64N(int64(3*time.Second))), 2*time.Second)
		default:
			l.read(i, key, tier.AnyAge, time.Duration(1+dice.IntN(2000))*time.Millisecond)
		}
		sleep(ctx, time.Duration(dice.Int64N(int64(20*time.Millisecond))))
	}
}

// sees waits until each of these nodes has a view of exactly these names, and all the same one.
// With idle it waits until nothing is in flight, too.
func (l *lab) sees(limit time.Duration, names []string, idle bool, nodes ...int) {
	l.Helper()
	began := time.Now()
	for {
		err := l.seen(names, idle, nodes)
		if err == nil {
			l.Logf("%v see %v after %v", nodes, names, time.Since(began).Round(10*time.Millisecond))
			return
		}
		if time.Since(began) > limit {
			l.Fatalf("after %v: %v", limit, err)
		}
		sleep(l.Context(), 50*time.Millisecond)
	}
}

func (l *lab) seen(names []string, idle bool, nodes []int) error {
	print := uint64(0)
	for _, i := range nodes {
		var s StatusReply
		if err := l.procs[i].callable().Call("Node.Status", struct{}{}, &s); err != nil {
			return err
		}
		slices.Sort(s.Members)
		switch {
		case !slices.Equal(s.Members, names):
			return fmt.Errorf("n%d sees %v instead of %v", i, s.Members, names)
		case len(nodes) > 1 && print != 0 && s.Fingerprint != print:
			return fmt.Errorf("n%d has another view than the others", i)
		case idle && s.Busy != 0:
			return fmt.Errorf("n%d has %d flights and loads", i, s.Busy)
		}
		print = s.Fingerprint
	}
	return nil
}

// wantDial checks whether from can open a connection to to.
func (l *lab) wantDial(from, to int, want bool) {
	l.Helper()
	var open bool
	addr := fmt.Sprintf("%s:%d", addressOf(to), nodePort)
	if err := l.procs[from].callable().Call("Node.Dial", addr, &open); err != nil || open != want {
		l.Errorf("a connection from n%d to n%d: %t, want %t (%v)", from, to, open, want, err)
	}
}

// TestNamespacesLong runs three nodes as processes on real sockets, cuts the network between them,
// stops one, kills one and starts it again, all under load, and checks what the clients saw. It
// takes about 50 seconds.
func TestNamespacesLong(t *testing.T) {
	if testing.Short() {
		t.Skip("this test takes a minute and needs root and iproute2")
	}
	const seed = 1
	t.Logf("seed %d", seed)
	l := newLab(t, seed, world{Nodes: 3, Freshness: shortLived()})
	everyone := []string{"n0", "n1", "n2"}
	for _, p := range l.procs {
		l.start(p)
	}
	l.sees(10*time.Second, everyone, false, 0, 1, 2)
	l.origin.SetMoods(Moods{Slow: 0.05, Fail: 0.05})

	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for i := range l.procs {
		for k := range 4 {
			clients.Go(func() { l.client(ctx, i, rand.New(rand.NewPCG(seed, uint64(100*i+k)))) })
		}
	}
	kill := func() {
		for _, p := range l.procs {
			l.end(p, (*process).kill)
		}
	}
	stop := func() {
		cancel()
		defer time.AfterFunc(30*time.Second, func() {
			t.Error("calls do not end; the processes are killed")
			kill()
		}).Stop()
		clients.Wait()
	}
	defer clients.Wait()
	defer kill()
	defer cancel()
	l.faults(ctx)
	l.origin.SetMoods(Moods{})
	l.sees(20*time.Second, everyone, false, 0, 1, 2)
	sleep(ctx, 2*time.Second)
	stop()
	l.sees(10*time.Second, everyone, true, 0, 1, 2)
	for _, p := range l.procs {
		l.end(p, (*process).close)
	}

	f := l.history.Figures()
	t.Logf("%+v", f)
	if f.Reads-f.Failed < 1000 || f.Confirmed < 20 {
		t.Error("too little came about to say anything")
	}
	// All clocks are one, but processes wait for a processor, and for the parent to look at the time.
	for _, v := range l.history.Check(Rules{Freshness: l.world.Freshness, Concurrency: l.world.concurrency(), Timeout: loadTimeout, Slack: 2 * time.Second}) {
		t.Errorf("seed %d: %v", seed, v)
	}
}

// faults is the schedule of TestNamespacesLong.
func (l *lab) faults(ctx context.Context) {
	l.Helper()
	everyone := []string{"n0", "n1", "n2"}
	sleep(ctx, 2*time.Second)

	l.Log("n2 is cut off, both ways")
	l.cut(2)
	l.sees(10*time.Second, []string{"n0", "n1"}, false, 0, 1)
	l.sees(10*time.Second, []string{"n2"}, false, 2)
	l.mend(2)
	l.sees(20*time.Second, everyone, false, 0, 1, 2)

	l.Log("what n0 sends to n1 is lost")
	l.cutOneWay(0, 1)
	l.wantDial(0, 1, false)
	l.wantDial(0, 2, true)
	l.wantDial(2, 1, true)
	sleep(ctx, 4*time.Second)
	l.mendOneWay(0, 1)
	l.sees(20*time.Second, everyone, false, 0, 1, 2)
	l.wantDial(0, 1, true)

	l.Log("n1 is stopped for 20 seconds")
	if err := l.procs[1].halt(); err != nil {
		l.Fatal(err)
	}
	stopped := time.Now()
	l.sees(10*time.Second, []string{"n0", "n2"}, false, 0, 2)
	sleep(ctx, time.Until(stopped.Add(20*time.Second)))
	if err := l.procs[1].resume(); err != nil {
		l.Fatal(err)
	}
	l.sees(20*time.Second, everyone, false, 0, 1, 2)

	l.Log("n0 is killed and started again, and at once a second time")
	for _, wait := range []time.Duration{2 * time.Second, 0} {
		l.end(l.procs[0], (*process).kill)
		sleep(ctx, wait)
		l.start(l.procs[0])
		l.sees(20*time.Second, everyone, false, 0, 1, 2)
	}
}
