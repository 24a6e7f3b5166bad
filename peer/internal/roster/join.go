package roster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// seedsAtOnce is how many addresses are joined concurrently. One that answers is enough: gossip does the rest.
	seedsAtOnce = 8
	// seedsPerRound is how many addresses one round tries until one answers. Every second round continues after the
	// addresses that the last such round tried, so that each gets its turn.
	seedsPerRound = 64
	// announceWait bounds the announcement of a join or a leave.
	announceWait = time.Second
	// announceAtOnce is how many members are told concurrently.
	announceAtOnce = 16
	// announceJoinTo is the largest number of members that a joining node tells one by one. In a larger cluster each member
	// has a small share, and gossip brings the news within a second.
	announceJoinTo = 128
)

// rejoin joins the seeds now, closes tried, and then joins them repeatedly until Shutdown.
func (r *Roster) rejoin(tried chan<- struct{}) {
	f := &r.finder
	defer func() {
		if !f.discover.end() {
			r.logger.Warn("Discover still runs although its context has ended; Close does not wait for it")
		}
	}()
	r.joinSeeds(r.ctx)
	close(tried)
	for {
		wait := r.cfg.Seeds.Interval
		wait += r.rng.jitter(wait*4/10) - wait/5
		t := time.NewTimer(wait)
		for due := false; !due; {
			select {
			case <-t.C:
				due = true
			case a := <-f.discover.answer: // nil if no call is in progress
				due = f.discover.recordLate(a)
			case <-r.ctx.Done():
				t.Stop()
				return
			}
		}
		t.Stop()
		r.joinSeeds(r.ctx)
	}
}

// joinSeeds resolves the seeds and joins those that are not members, a few at a time, until one has answered or none is
// left. If there are more than it tries, the next attempt continues with the others, because the first ones may be dead, or
// may be on this node's own side of a split.
func (r *Roster) joinSeeds(ctx context.Context) {
	f := &r.finder
	addrs, unfound := f.find(ctx)
	if ctx.Err() != nil {
		return
	}
	known := map[netip.AddrPort]bool{r.cfg.Addr: true}
	for _, o := range r.table.others() {
		known[o.addr] = true
	}
	unknown := slices.DeleteFunc(addrs, func(a netip.AddrPort) bool { return known[a] })
	if len(unknown) == 0 && (len(unfound) == 0 || len(known) > 1) {
		r.joined.Store(true) // everyone is here, or there is nobody to join
		r.complain(unfound)
		f.continuing = !f.continuing && f.partial
		return
	}
	all := len(unknown)
	unknown = unknown[:min(all, seedsPerRound)]

	var tried []netip.AddrPort
	var errs []error
	answered := 0
	for answered == 0 && len(tried) < len(unknown) && ctx.Err() == nil {
		some := unknown[len(tried):min(len(unknown), len(tried)+seedsAtOnce)]
		tried = unknown[:len(tried)+len(some)]
		errs = r.joinEach(some) // those tried before did not answer either
		for _, err := range errs {
			if err == nil {
				answered++
			}
		}
	}
	if f.continuing && len(tried) > 0 {
		f.addrTurn = tried[len(tried)-1]
	}
	f.continuing = !f.continuing && (f.partial || len(tried) < all)
	if ctx.Err() != nil {
		return
	}
	first := !r.joined.Load()
	if answered > 0 {
		r.joined.Store(true)
		if first {
			r.logger.Info("joined", "seeds", answered, "members", len(r.table.others())+1)
			if others := r.table.others(); len(others) <= announceJoinTo {
				others = slices.DeleteFunc(others, func(o peerAddress) bool { return slices.Contains(tried, o.addr) })
				r.announce(ctx, others)
			}
		}
	}
	r.complain(unfound)
	err := errors.Join(errs...)
	if first && answered == 0 {
		err = cmp.Or(err, allFailed(unfound))
	}
	if err != nil && r.noise.Allow("seeds", time.Now()) {
		text := "some seeds did not answer"
		if first && answered == 0 {
			text = "no seed answered; the node goes on alone and tries again"
		}
		r.logger.Warn(text, "error", err, "again in", r.cfg.Seeds.Interval)
	}
}

// complain logs which seeds cannot be found, once for each change, and when all can be found again.
func (r *Roster) complain(failed []failure) {
	var kinds []string
	for _, f := range failed {
		kinds = append(kinds, f.kind())
	}
	if slices.Equal(kinds, r.finder.logged) {
		return
	}
	if len(kinds) == 0 {
		r.finder.logged = nil
		r.logger.Info("all seeds can be resolved again")
		return
	}
	if r.noise.Allow("finding seeds", time.Now()) { // otherwise after the next attempt
		r.finder.logged = kinds
		r.logger.Warn("seeds cannot be resolved; their last known addresses are used", "error", allFailed(failed), "again in", r.cfg.Seeds.Interval)
	}
}

// joinEach joins some seeds concurrently and returns the error of each.
func (r *Roster) joinEach(seeds []netip.AddrPort) []error {
	errs := make([]error, len(seeds))
	var wg sync.WaitGroup
	for i, a := range seeds {
		wg.Go(func() {
			if _, err := r.gossip.Join([]string{a.String()}); err != nil {
				errs[i] = joinError(a, unwrapOne(err))
			}
		})
	}
	wg.Wait()
	return errs
}

// joinError adds to the error of a failed attempt to join what it means.
func joinError(seed netip.AddrPort, err error) error {
	text := err.Error()
	return fmt.Errorf("%s: %w%s", seed, err, strings.TrimPrefix(explainGossip(text), text))
}

// unwrapOne extracts the only error from memberlist's list of errors, whose text has line breaks.
func unwrapOne(err error) error {
	if many, ok := err.(interface{ WrappedErrors() []error }); ok && len(many.WrappedErrors()) == 1 {
		return many.WrappedErrors()[0]
	}
	return err
}

// announce tells each of the members directly this node's identity and whether it leaves. It waits for that at most
// announceWait.
func (r *Roster) announce(ctx context.Context, to []peerAddress) {
	if len(to) == 0 {
		return
	}
	r.rng.shuffle(len(to), func(i, j int) { to[i], to[j] = to[j], to[i] })
	r.tell(ctx, to, r.table.NodeMeta(memberlist.MetaMaxSize))
}

// tell sends a message to each of the members. It waits for that at most announceWait.
func (r *Roster) tell(ctx context.Context, to []peerAddress, msg []byte) {
	ctx, cancel := context.WithTimeout(ctx, announceWait)
	defer cancel()

	next := make(chan peerAddress)
	var workers sync.WaitGroup // they also belong to r.wg, because a dead member keeps one busy for a while
	for range min(announceAtOnce, len(to)) {
		workers.Add(1)
		r.wg.Go(func() {
			defer workers.Done()
			for p := range next {
				node := &memberlist.Node{Name: p.gossipName, Addr: p.addr.Addr().AsSlice(), Port: p.addr.Port()}
				if err := r.gossip.SendReliable(node, msg); err != nil {
					r.logger.Debug("an announcement did not reach a member", "member", p.gossipName, "error", err)
				}
			}
		})
	}
	all := make(chan struct{})
	r.wg.Go(func() { workers.Wait(); close(all) })
feed:
	for _, p := range to {
		select {
		case next <- p:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	select {
	case <-all:
	case <-ctx.Done():
	}
}
