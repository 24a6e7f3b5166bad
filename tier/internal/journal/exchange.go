package journal

import (
	"context"
	"fmt"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/fence"
)

// exchangeEvery is how often, in ns, members have an exchange without need while there are invalidations.
const exchangeEvery = int64(2 * time.Second)

// An exchange, the anti-entropy exchange, compares what two members have applied. This node asks the other for its
// positions and for what this node lacks, applies that, and sends the other what that member lacks. When the other has
// confirmed, this node knows what it has applied. All callers that need one at the same time share it.
type exchange struct {
	done chan struct{}
	err  error // read after done is closed
}

// Exchange runs an exchange with m, or joins the one in progress. It returns when that exchange or ctx has ended. The
// error is ErrGone if m is not in the view.
func (j *Journal) Exchange(ctx context.Context, m *Member) error {
	x, err := j.startExchange(m)
	if err != nil {
		return err
	}
	select {
	case <-x.done:
		return x.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// startExchange returns m's exchange in progress; it starts one if there is none.
func (j *Journal) startExchange(m *Member) (*exchange, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if m.via != "" {
		j.applyView() // m may have come into the view since
	}
	if m.exchange != nil {
		return m.exchange, nil
	}
	x := &exchange{done: make(chan struct{})}
	if !m.inView() || !j.spawn(func() { j.runExchange(m, x) }) {
		return nil, ErrGone
	}
	m.exchange = x
	return x, nil
}

func (j *Journal) runExchange(m *Member, x *exchange) {
	err := j.compare(m)
	j.mu.Lock()
	m.exchange = nil
	j.mu.Unlock()
	x.err = err
	close(x.done)
}

// compare runs an exchange with m.
func (j *Journal) compare(m *Member) error {
	var lacks *delta
	var before *Watermark
	var applied uint64
	for {
		asked, news, err := j.requestPositions(m)
		if err != nil {
			return err
		}
		before, applied = asked, j.Receive(news)
		if !news.More || applied == 0 { // 0: m only has numbers beyond a gap of its own
			lacks = deltaOf(news)
			break
		}
	}
	for more := true; more; {
		var news codec.News
		j.mu.Lock()
		more = j.log.fill(lacks, &news, j.now())
		j.mu.Unlock()
		if len(news.Bases)+len(news.Invalidations) == 0 {
			break
		}
		ack, err := j.post(j.ctx, m, "", &news)
		if err != nil {
			return err
		}
		if ack.empty || ack.incarnation != before.Incarnation {
			return fmt.Errorf("%w: the cache at %s has changed", ErrAnswer, m.name)
		}
		j.counts.Replayed.Add(int64(len(news.Invalidations)))
	}
	j.counts.Exchanges.Add(1)

	j.mu.Lock()
	defer j.mu.Unlock()
	w := before
	if j.log.total == before.total+applied { // everything new came from m
		w = j.appliedHere(before.Incarnation)
	}
	m.watermark.Store(w)
	m.exchanged = j.now()
	m.confirmed.add(upTo(before.own))
	m.empty, m.exchangeDue, m.compared = false, false, true
	j.notePending()
	j.endWaits()
	return nil
}

// requestPositions asks m for its positions and for what this node lacks. before is what this node had applied when it
// asked, as what m will have applied at the end of the exchange.
func (j *Journal) requestPositions(m *Member) (before *Watermark, news *codec.News, err error) {
	ctx, cancel, timeout := j.attempt(j.ctx)
	defer cancel()
	j.mu.Lock()
	to := m.node
	before = j.appliedHere(0)
	m.gap = false
	view := j.viewPrint()
	ask := j.positions()
	j.mu.Unlock()
	req := codec.Request{Kind: codec.KindSync, Namespace: j.namespace, Schema: j.schema, View: view, Timeout: timeout, News: ask}
	var resp codec.Response
	if err := j.peers.Call(ctx, to, &req, &resp); err != nil {
		return nil, nil, err
	}
	defer resp.Release()
	switch resp.Status {
	case codec.StatusSynced:
		m.reply.Store(&Reply{View: view, Flags: resp.Flags})
		if resp.Flags&codec.FlagSameView != 0 {
			j.SameView(m)
		}
	case codec.StatusUnknown, codec.StatusClosed:
		m.reply.Store(&Reply{View: view, Empty: true})
		j.mu.Lock()
		defer j.mu.Unlock()
		m.confirmed.add(upTo(before.own))
		j.setEmpty(m)
		j.endWaits()
		return nil, nil, errEmpty
	default:
		return nil, nil, fmt.Errorf("%w: status %d: %s", ErrAnswer, resp.Status, resp.Text)
	}
	news = new(codec.News)
	if err := codec.DecodeNews(news, append([]byte(nil), resp.Value...)); err != nil {
		return nil, nil, err
	}
	j.log.lives.heard(news.Life)
	before.Incarnation = resp.Incarnation
	return before, news, nil
}

// appliedHere returns what this cache has applied by now, as what another member's cache is known to have applied. The
// caller holds mu.
func (j *Journal) appliedHere(incarnation uint64) *Watermark {
	return &Watermark{Watermark: j.fences.Watermark(incarnation), total: j.log.total, own: j.log.own().top}
}

// positions returns this cache's positions and how long its copies live, as a request carries them. The caller holds mu.
func (j *Journal) positions() *codec.News {
	return &codec.News{Life: time.Duration(j.log.lives.own.Load()), Positions: j.log.positions(nil, j.now())}
}

// Positions returns what this cache has applied and how long its copies live, for a request to another member.
func (j *Journal) Positions() *codec.News {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.positions()
}

// Need is what a member must have applied before it is asked for a key.
type Need struct {
	Key   string
	Hash  uint64 // ring.Hash of Key
	Stamp uint64 // everything that covers the key and was applied here when its fence clock showed this
	Tags  uint64 // and everything that covers tags, up to this tag clock
}

// maxExchanges is how many exchanges Ready has at most.
const maxExchanges = 3

// Ready returns what m is known to have applied and what a request for the key must tell it. It has an exchange with m
// first if one is needed; the debt that it returns needs none. The error is ErrAnswer if three exchanges did not help.
func (j *Journal) Ready(ctx context.Context, m *Member, needs Need) (w *Watermark, d fence.Debt, err error) {
	for try := 0; ; try++ {
		if w = m.watermark.Load(); w != nil {
			if d = j.fences.Debt(needs.Key, needs.Hash, needs.Stamp, &w.Watermark); d.Duty != fence.Exchange && w.Tags >= needs.Tags {
				return w, d, nil
			}
		}
		if try == maxExchanges {
			return nil, d, ErrAnswer
		}
		if err := j.Exchange(ctx, m); err != nil {
			return nil, d, err
		}
	}
}
