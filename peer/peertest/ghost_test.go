package peertest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/tier"
)

// hurried is a cluster whose members divide caps by the members that they see: a lost member stops counting at once.
type hurried struct{ tier.Cluster }

func (hurried) SharesMove() bool { return true }

func (h hurried) Divisor() (members, rank int) {
	v := h.View()
	return v.Len(), v.Index(h.Name())
}

// pods is a cluster of hosts that are replaced: each start has a new name and a new address.
type pods struct {
	*Cluster
	starts int
}

func newPods(ctx context.Context, t *testing.T, o Options) *pods {
	t.Helper()
	p := &pods{Cluster: New(o)}
	for i := range p.hosts {
		p.start(ctx, t, i)
	}
	if err := p.Settle(settleLimit); err != nil {
		t.Fatal(err)
	}
	return p
}

// start starts the i-th host under the next name, which sorts before all earlier ones.
func (p *pods) start(ctx context.Context, t *testing.T, i int) {
	t.Helper()
	p.starts++
	h := p.hosts[i]
	h.name, h.ip = fmt.Sprintf("pod-%02d", 99-p.starts), fmt.Sprintf("10.0.1.%d", p.starts)
	var ips []string
	for _, h := range p.hosts {
		ips = append(ips, h.ip)
	}
	p.Net.SetName("weir.test", ips...)
	if err := p.Start(ctx, i); err != nil {
		t.Fatal(err)
	}
	sleep(ctx, time.Millisecond) // the order of the starts decides how a share's remainder is distributed
}

// divisors returns the divisors that the running nodes apply to caps: one number if they agree.
func (p *pods) divisors() string {
	by := make(map[int]int)
	for i := range p.hosts {
		if n, _ := p.Node(i); n != nil {
			m, _ := n.Divisor()
			by[m]++
		}
	}
	return fmt.Sprint(by)
}

// TestCapAfterNewNames lets processes crash and start again under new names repeatedly, and then replaces all of them in
// order. After the longest load, no node divides a cap by more members than there are, and the origin never has more loads
// than its cap.
func TestCapAfterNewNames(t *testing.T) {
	Bubble(t, func(t *testing.T) {
		ctx := t.Context()
		p := newPods(ctx, t, Options{Seed: 4, MinMembers: 1, Concurrency: 11, Timeout: 3 * time.Second, HoldDown: -1})
		p.Origin.SetMoods(Moods{Overrun: 0.2})
		work, stop := context.WithCancel(ctx)
		wait := load(work, p.Cluster, 500, 20*time.Millisecond)
		for i := range 3 {
			if err := p.Crash(i); err != nil {
				t.Error(err)
			}
			p.start(ctx, t, i)
			sleep(ctx, 2*time.Second)
		}
		sleep(ctx, 40*time.Second)
		if d := p.divisors(); d != "map[5:5]" {
			t.Errorf("after three crashes caps are divided by %s", d)
		}
		for i := range p.hosts {
			if err := p.Leave(ctx, i); err != nil {
				t.Error(err)
			}
			p.start(ctx, t, i)
		}
		sleep(ctx, 40*time.Second)
		if d := p.divisors(); d != "map[5:5]" {
			t.Errorf("after a rolling restart caps are divided by %s", d)
		}
		stop()
		wait()
		p.Origin.SetMoods(Moods{})
		if err := p.Settle(settleLimit); err != nil {
			t.Error(err)
		}
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
		for _, v := range p.History.Check(p.Rules()) {
			if v.Guarantee == "G4" {
				t.Error(v)
			}
		}
	})
}

// apart keeps the i-th node alive and loading behind a partition while another one crashes and starts again under a new
// name, and then heals the partition. It returns the maximum number of concurrent loads during the partition and in the
// whole run, and whether that broke G4.
func apart(t *testing.T, i int, wrap func(tier.Cluster) tier.Cluster) (split, whole int, broken bool) {
	Bubble(t, func(t *testing.T) {
		ctx := t.Context()
		p := newPods(ctx, t, Options{Seed: 4, MinMembers: 1, Concurrency: 11, Timeout: 3 * time.Second, HoldDown: -1, Wrap: wrap,
			Freshness: tier.Freshness{TTL: time.Hour, NearTTL: time.Minute}})
		sleep(ctx, 5*time.Second)
		p.Net.Isolate(p.IP(i))
		sleep(ctx, 10*time.Second)
		if err := p.Crash(1); err != nil {
			t.Error(err)
		}
		p.start(ctx, t, 1)
		sleep(ctx, 30*time.Second)
		p.Origin.SetMoods(Moods{Overrun: 1})
		var wg sync.WaitGroup
		ask := func(round int) {
			for i := range p.hosts {
				for j := range 20 {
					wg.Go(func() { p.Get(i, fmt.Sprintf("k%d-%d-%d", round, i, j), 20*time.Second) })
				}
			}
			sleep(ctx, 2*time.Second)
		}
		ask(0)
		split = p.History.Figures().Peak
		ask(1)
		p.Net.Heal()
		for round := range 5 {
			ask(2 + round)
		}
		p.Origin.SetMoods(Moods{})
		wg.Wait()
		if err := p.Settle(settleLimit); err != nil {
			t.Error(err)
		}
		sleep(ctx, 20*time.Second)
		if d := p.divisors(); wrap == nil && d != "map[5:5]" {
			t.Errorf("after the partition caps are divided by %s", d)
		}
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
		whole = p.History.Figures().Peak
		for _, v := range p.History.Check(p.Rules()) {
			broken = broken || v.Guarantee == "G4"
		}
	})
	return split, whole, broken
}

// TestCapBehindAPartition checks that a member behind a partition keeps its share of the caps, whatever happens on the
// other side meanwhile. It covers the member that started first, which has the remainder of an uneven division, and the
// member whose name sorted first before the new process's name did.
func TestCapBehindAPartition(t *testing.T) {
	for _, i := range []int{0, 4} {
		if split, whole, broken := apart(t, i, nil); broken || split < 10 || whole < 11 {
			t.Errorf("host %d: %d loads at once behind the partition, %d in all, G4 broken: %v", i, split, whole, broken)
		}
	}
}

// TestControlHurriedDivisor is the control: if lost members stop counting at once, a member behind a partition and the
// others together exceed the cap, and the checker detects it.
func TestControlHurriedDivisor(t *testing.T) {
	if split, _, broken := apart(t, 0, func(c tier.Cluster) tier.Cluster { return hurried{c} }); !broken || split <= 11 {
		t.Errorf("%d loads at once, and no violation: the checker proves nothing", split)
	}
}
