package owner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/journal"
	"github.com/weircache/weir/tier/internal/store"
)

// A node that leaves pushes its copies to their new owners, those in most demand first. As the previous owner it
// answers their requests until everything is pushed or the time for it is over. Members that leave at the same time
// take no copies: each pushes to those that stay.
//
// A member that does not answer may be unreachable only for a moment, or only for this node. So a push that fails goes
// through another member (relay in serve.go), and what could not be pushed at all is pushed again until the time for it
// is over:
//
//	a key                            event                              what follows
//	to be pushed                     the owner takes the push           it is done
//	to be pushed                     the push fails                     the next way to the owner: itself, or through another member
//	to be pushed                     every way has failed in a row      left
//	to be pushed                     the owner says that it leaves      to be pushed to the owner in the next view; done if all leave
//	left                             handoffAgain has passed            to be pushed to the owner in the view at that time
//	to be pushed or left             its copy has become invalid here   done
//	to be pushed or left             the time is over                   not handed over; a warning says so
//
// A pushed copy obeys the same rule as any other: no invalidation that covers it was applied at the receiver after its
// load began. The receiver gives out tokens. Each token stands for a moment of the receiver at which the pusher had
// applied everything that the receiver had: each push says how far the pusher has come (positions), the receiver
// compares, and answers either with what the pusher lacks or with a token. The pusher looks at its entries only after
// it got the token that goes with them. So an invalidation applied at the receiver before that moment was applied at
// the pusher before it looked. One applied since is above the fence clocks of that moment, which the entry is given as
// its stamp. Age and expiry count from that moment as well, because nobody knows how long the push took. If a mark that
// came with a request, and is in no log yet, covers an entry, the receiver does not take the entry at all. And every
// other member must know the receiver, as for copies that it asks for itself (previous.go): until then it gives no
// token.
const (
	// handoffBatch is about how many bytes one push carries.
	handoffBatch = 256 << 10
	// handoffAtOnce is how many members are pushed to at the same time.
	handoffAtOnce = 8
	// handoffTimeout bounds one push. handoffTries is how often in a row a push may fail on each way to the member.
	handoffTimeout = 2 * time.Second
	handoffTries   = 3
	// handoffAgain is how long a node that leaves waits before it pushes again what it could not push.
	handoffAgain = 250 * time.Millisecond
	// handoffPause is how long a pusher waits before it asks again for a token that it did not get.
	handoffPause = 50 * time.Millisecond
	// maxTokens is how many tokens are remembered.
	maxTokens = 256
)

// Drain implements codec.Drainer: it hands over this node's copies.
func (h Handler) Drain(ctx context.Context) { h.c.handOver(ctx) }

// handOver pushes this node's copies to the members that own their keys now. It returns when that is done and no fill
// is in progress here, or when ctx ends.
func (c *Owner) handOver(ctx context.Context) {
	if !c.Life.Begin() {
		return
	}
	defer c.Life.End()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.Ctx, cancel)()
	began := c.Clock.Now()
	c.Leaving.Store(true)
	c.Config.OnDrain()
	c.Config.Near.Clear() // nobody tells this node of invalidations any more
	pace := &Pacer{Rate: c.Config.HandoffRate}
	left := c.pushAll(ctx, pace, c.Hottest(func(_ string, e *store.Entry) bool { return !e.Replica }))
	tick := time.NewTicker(handoffPause)
	defer tick.Stop()
	again := c.Clock.Now() + int64(handoffAgain)
	for filling := false; ; {
		live, _ := c.Flights.Size()
		if filling && live == 0 {
			since := began
			began = c.Clock.Now()
			left = append(left, c.pushAll(ctx, pace, c.Hottest(func(_ string, e *store.Entry) bool { return !e.Replica && e.Loaded+int64(e.Cost) >= since }))...)
		}
		filling = live > 0
		if len(left) > 0 && c.Clock.Now() >= again {
			left = c.pushAll(ctx, pace, left)
			again = c.Clock.Now() + int64(handoffAgain)
		}
		if !filling && len(left) == 0 {
			return
		}
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		break
	}
	if len(left) > 0 {
		c.Config.Logger.Warn("not all copies were handed over", "namespace", c.Config.Namespace, "handed", c.Stats.Pushed.Load(), "left", len(left))
	}
}

// hotEntry is a key of the owned tier and how much it is in demand.
type hotEntry struct {
	Key  string
	heat uint8
}

// Hottest returns the keys of the owned tier whose entries are wanted and not failures, those in most demand first.
func (c *Owner) Hottest(wanted func(key string, e *store.Entry) bool) []hotEntry {
	var list []hotEntry
	c.Owned.Ranked(func(key string, e *store.Entry, heat uint8) {
		if e.Flags&store.Failed == 0 && wanted(key, e) {
			list = append(list, hotEntry{key, heat})
		}
	})
	slices.SortStableFunc(list, func(a, b hotEntry) int { return cmp.Compare(b.heat, a.heat) })
	return list
}

// pushAll pushes keys to their owners, and returns those that could not be pushed. Owners that leave as well take
// nothing: their keys go to the owners in the next view, and to no member if all others leave.
func (c *Owner) pushAll(ctx context.Context, pace *Pacer, keys []hotEntry) (left []hotEntry) {
	if c.Config.HandoffRate < 0 {
		return nil
	}
	view, going := c.Config.Cluster.View(), map[ring.Member]bool{}
	for {
		some, more := c.pushParts(ctx, view, keys, view.OwnerIndex, pace, false)
		if left = append(left, some...); len(more) == 0 {
			return left
		}
		refused := make(map[string]bool, len(more))
		for _, m := range more {
			going[m], refused[m.Name] = true, true
		}
		var rest []hotEntry
		for _, x := range keys {
			if refused[view.Owner(x.Key).Name] {
				rest = append(rest, x)
			}
		}
		if view, keys = c.viewWithout(ctx, going), rest; view == nil {
			if ctx.Err() != nil {
				left = append(left, rest...)
			}
			return left
		}
	}
}

// viewWithout waits for a view without the members that leave. nil: there will be none, because all others leave, or
// ctx has ended.
func (c *Owner) viewWithout(ctx context.Context, going map[ring.Member]bool) *ring.View {
	for {
		changed := c.Config.Cluster.ViewChanged()
		view := c.Config.Cluster.View()
		stay, leave := 0, 0
		for _, m := range view.Members() {
			switch {
			case m.Name == c.Self:
			case going[m]:
				leave++
			default:
				stay++
			}
		}
		switch {
		case stay == 0:
			return nil
		case leave == 0:
			return view
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// pushParts pushes each key to the member of the view that to returns for it, unless that is this node. spare: the
// copies are replicas, for the loss of this node. It returns the keys that could not be pushed, and the members that
// take nothing because they leave. The keys of those members are not in left.
func (c *Owner) pushParts(ctx context.Context, view *ring.View, list []hotEntry, to func(key string) int, pace *Pacer, spare bool) (left []hotEntry, going []ring.Member) {
	parts := make([][]hotEntry, view.Len())
	var turns []int // members, the one with the hottest key first
	for _, x := range list {
		i := to(x.Key)
		if i < 0 || view.Members()[i].Name == c.Self {
			continue
		}
		if parts[i] == nil {
			turns = append(turns, i)
		}
		parts[i] = append(parts[i], x)
	}
	var wg sync.WaitGroup
	errs := make([]error, view.Len())
	next := make(chan int)
	for range min(handoffAtOnce, len(turns)) {
		wg.Go(func() {
			for i := range next {
				parts[i], errs[i] = c.pushTo(ctx, view, view.Members()[i], parts[i], pace, spare)
			}
		})
	}
	for _, i := range turns {
		next <- i
	}
	close(next)
	wg.Wait()
	for _, i := range turns {
		if errs[i] == errGoes {
			going = append(going, view.Members()[i])
		} else {
			left = append(left, parts[i]...)
		}
	}
	return left, going
}

// errGoes says that a member takes no copies, because it leaves or its cache is closed.
var errGoes = errors.New("weir: the member leaves")

// routes returns the members that a push to one member is sent to, one after the other while it fails: the member itself,
// and others that relay it.
func (c *Owner) routes(to ring.Member) []ring.Member {
	return append([]ring.Member{to}, c.Journal.Relays(to.Name)...)
}

// pushTo pushes keys to a member. It returns those that the member has not got although they are still here, and why.
func (c *Owner) pushTo(ctx context.Context, view *ring.View, to ring.Member, keys []hotEntry, pace *Pacer, spare bool) (left []hotEntry, err error) {
	var token, incarnation uint64
	flags, pushed := uint8(0), &c.Stats.Pushed
	var ways []ring.Member
	if spare {
		flags, pushed, ways = codec.FlagSuccessor, &c.Stats.ReplicasSent, []ring.Member{to}
	} else {
		ways = c.routes(to)
	}
	way := 0 // index of the way that is tried
	for failures := 0; len(keys) > 0; {
		if err := ctx.Err(); err != nil {
			return keys, err
		}
		req := codec.Request{Kind: codec.KindPush, Flags: flags, Namespace: c.NamespaceBytes, Schema: c.Config.Schema, View: view.Fingerprint(), Token: token, Timeout: handoffTimeout}
		taken := 0
		if token != 0 {
			req.Pushed, taken = c.batch(keys, spare)
		}
		req.News = c.Journal.Positions()
		answer, news, err := c.postPush(ctx, to, ways[way], &req)
		wait := time.Duration(0)
		switch {
		case err == errGoes:
			return keys, err
		case err != nil:
			way = (way + 1) % len(ways)
			if failures++; failures == handoffTries*len(ways) {
				c.Config.Logger.Debug("member takes no copies", "namespace", c.Config.Namespace, "member", to.Name, "err", err)
				return keys, err
			}
			wait = handoffPause
		case token != 0 && answer.Incarnation != incarnation: // another cache instance, for which the token means nothing
			token = 0
		default:
			failures, incarnation = 0, answer.Incarnation
			pushed.Add(int64(len(req.Pushed)))
			keys = keys[taken:]
			if answer.Status == codec.StatusSynced {
				if c.Journal.Receive(news) == 0 && token == 0 {
					wait = handoffPause
				}
			} else if token = answer.Seq; token == 0 {
				wait = handoffPause
			}
			wait = max(wait, pace.spend(req.Size(), c.Clock.Now()))
		}
		if wait > 0 && len(keys) > 0 {
			if err := Sleep(ctx, wait); err != nil {
				return keys, err
			}
		}
	}
	return nil, nil
}

// postPush sends a push to a member, by the way of another member if way is not to, and returns what the answer says.
func (c *Owner) postPush(ctx context.Context, to, way ring.Member, req *codec.Request) (answer codec.Response, lacks *codec.News, err error) {
	ctx, cancel := context.WithTimeout(ctx, handoffTimeout)
	defer cancel()
	if way.Name != to.Name {
		req.Flags, req.Target = req.Flags|codec.FlagRelay, BytesOf(to.Name)
	}
	var resp codec.Response
	if err := c.Config.Cluster.Call(ctx, way, req, &resp); err != nil {
		return answer, nil, err
	}
	defer resp.Release()
	// A member that runs an earlier version answers for itself. It keeps nothing, because the token is not its own.
	if relayed := resp.Flags&codec.FlagRelayed != 0; relayed != (way.Name != to.Name) {
		return answer, nil, fmt.Errorf("%w: status %d from %s instead of %s: %s", journal.ErrAnswer, resp.Status, way.Name, to.Name, resp.Text)
	}
	answer = codec.Response{Status: resp.Status, Incarnation: resp.Incarnation, Seq: resp.Seq}
	switch resp.Status {
	case codec.StatusDone:
		return answer, nil, nil
	case codec.StatusSynced:
		lacks = new(codec.News)
		return answer, lacks, codec.DecodeNews(lacks, append([]byte(nil), resp.Value...))
	case codec.StatusClosed:
		return answer, nil, errGoes
	}
	return answer, nil, journal.ErrAnswer
}

// A pacer limits what several senders send together to a number of bytes a second.
type Pacer struct {
	Rate int64

	mu   sync.Mutex // guards next
	next int64      // when all that was sent so far is within the rate; ns
}

// spend counts bytes and returns how long to wait before the next ones.
func (p *Pacer) spend(bytes int, now int64) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = max(p.next, now) + int64(float64(bytes)/float64(p.Rate)*float64(time.Second))
	return time.Duration(p.next - now)
}
