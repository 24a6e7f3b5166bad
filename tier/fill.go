package tier

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"runtime/debug"
	"time"

	"github.com/weircache/weir/tier/internal/clock"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/placement"
	"github.com/weircache/weir/tier/internal/store"
)

// errNoPrevious is what KeepPrevious returns if there is nothing to keep.
var errNoPrevious = errors.New("weir: KeepPrevious, but there is no previous value")

// A Fill is one run of a loader for one key, as the loader sees it. Its methods, except Step, must be called from one
// goroutine at a time, and never after the loader has returned.
type Fill[V any] struct {
	// Key is what to load.
	Key string

	c *Cache[V]
	run
	value V
}

// run is what a run of a loader has beside the value.
type run struct {
	core   *core
	flight *flight
	prev   *store.Entry
	ttl    time.Duration
	keep   bool
	drop   bool // the value is only for the waiting callers

	tags    []uint32
	tagErr  error
	version uint64
	stale   *Stale // nil: Freshness applies

	// set by a batch loader
	err  error
	done bool
}

// loading is a run of a loader for code that does not know the type of its value: a *Fill[V], which keeps the value.
type loading interface {
	state() *run
	// load runs the Loader.
	load(ctx context.Context) error
	// pack encodes the value. The value is then what callers get.
	pack() ([]byte, error)
	// unpack decodes the value from b.
	unpack(b []byte) error
}

// newFill returns a run of the loader for a flight.
func (c *Cache[V]) newFill(f *flight) loading {
	return &Fill[V]{Key: f.key, c: c, run: run{core: &c.core, flight: f, prev: f.prev}}
}

func (f *Fill[V]) state() *run { return &f.run }

func (f *Fill[V]) load(ctx context.Context) (err error) {
	f.value, err = f.c.loader(ctx, f)
	return err
}

// pack implements loading. Without ServeLoaded callers get the value decoded again, as later callers will get it. So
// the first callers see no fields that are not encoded and share no memory with the loader, and a value that cannot be
// decoded is not kept.
func (f *Fill[V]) pack() ([]byte, error) {
	b, err := f.c.encode(f.value)
	if err != nil || f.c.serveLoaded {
		return b, err
	}
	return b, f.unpack(b)
}

func (f *Fill[V]) unpack(b []byte) (err error) {
	f.value, err = f.c.decode(b)
	return err
}

// loadBatch runs the BatchLoader for fills, each of which then has its own result.
func (c *Cache[V]) loadBatch(ctx context.Context, fills []loading) error {
	own := make([]*Fill[V], len(fills))
	for i, f := range fills {
		own[i] = f.(*Fill[V])
	}
	return c.batchLoader(ctx, own)
}

// Previous returns the stale copy that the fill replaces, if there is one, for a conditional read of the origin. Each
// call decodes a new value, which the loader owns.
func (f *Fill[V]) Previous() (value V, ok bool) {
	if f.prev == nil || f.prev.Flags&(store.NotFound|store.Failed) != 0 {
		return value, false
	}
	value, err := f.c.decode(f.prev.Value)
	return value, err == nil
}

// KeepPrevious says that the previous value is still the origin's ("not modified"), so that it becomes fresh again. A
// Loader returns what KeepPrevious returns; in a BatchLoader the call settles the fill.
func (f *Fill[V]) KeepPrevious() (V, error) {
	value, ok := f.Previous()
	if !ok {
		return value, errNoPrevious
	}
	f.keep = true
	f.value, f.err, f.done = value, nil, true
	return value, nil
}

// SetTTL replaces Freshness.TTL for this value; it is not jittered. The windows for stale answers follow it unchanged.
// A d of 0 or below means DoNotKeep. If Freshness.MaxTTL is set and d is above it, the fill fails with ErrTTLTooLong.
func (f *Fill[V]) SetTTL(d time.Duration) {
	if d <= 0 {
		f.DoNotKeep()
		return
	}
	f.ttl = max(min(d, maxTTL), 1)
}

// DoNotKeep says that the result is only for the callers that wait for this fill: they get it, and nothing is stored,
// so that the next caller starts another load. It also applies to ErrNotFound. An earlier copy is removed.
func (f *Fill[V]) DoNotKeep() { f.drop = true }

// Step marks the start of a call to a dependency of the loader. The function that it returns marks the end: defer
// fill.Step("postgres")(). That function accepts the call's error. The stats show how often each dependency was called,
// how long it took and how often it failed. Safe for concurrent use. Up to 64 names are counted separately, the rest
// together as "other".
func (f *Fill[V]) Step(name string) func(err ...error) {
	began := f.core.clock.Now()
	return func(err ...error) {
		failed := false
		for _, e := range err {
			failed = failed || e != nil
		}
		f.core.stats.step(name, time.Duration(f.core.clock.Now()-began), failed)
	}
}

// SetVersion reports the origin's own version of the value: a number that grows with each change of the key, such as a
// row's version or a log's position. If an invalidation or a Put has reported a higher version, see At, this value
// comes from a replica that lags: the waiting callers get it, and it is not kept. 0: unknown. With KeepPrevious the
// previous value's version stays if none is reported. It also applies to ErrNotFound.
func (f *Fill[V]) SetVersion(version uint64) { f.version = version }

func (f *run) versionOf() uint64 {
	if f.version == 0 && f.keep {
		return f.prev.Version
	}
	return f.version
}

// etag identifies the content of e: different contents have different etags, except with probability 1 in 2^64.
func (c *core) etag(e *store.Entry) uint64 {
	if e.Flags != 0 {
		return 0
	}
	var h maphash.Hash
	h.SetSeed(c.seed)
	for _, tag := range e.Tags.List() {
		_ = binary.Write(&h, binary.LittleEndian, tag)
	}
	_ = h.WriteByte(byte(len(e.Tags.List())))
	_, _ = h.Write(e.Value)
	return max(h.Sum64(), 1)
}

// noWait, as the time until which a caller waits, says that the caller does not wait.
const noWait = -1

// patience returns until when a caller waits for a flight; 0: without end.
func (c *core) patience(ctx context.Context) int64 {
	if deadline, ok := ctx.Deadline(); ok {
		return max(clock.Later(c.clock.Now(), time.Until(deadline)), 1)
	}
	return 0
}

// join returns the live flight for a key, starting one if there is none.
func (c *core) join(w *boarding) (*flight, error) {
	f, _, err := c.joinOrStart(w)
	return f, err
}

// boarding is what a caller wants of a flight. maxAge, wide and began are ignored for a caller that only starts one.
type boarding struct {
	lookup
	class  governor.Class
	cause  placement.Cause
	prev   *store.Entry // the copy that the caller saw, nil: none
	until  int64        // until when the caller waits: patience, or noWait
	from   Trace        // the caller's trace, if it is traced
	before *flight      // the flight that sends the caller on, see flights.join; nil: none
	wide   uint64       // the tag clock when the caller's read began
	began  int64        // when the caller's read began
}

// joinOrStart is join, and reports whether it started the flight.
func (c *core) joinOrStart(w *boarding) (f *flight, started bool, err error) {
	if !c.life.begin() {
		return nil, false, ErrClosed
	}
	f, started = c.flights.join(w.hash, w.key, w.until != noWait, w.before, func() *flight {
		return &flight{
			key: cloneString(w.key), hash: w.hash, cause: w.cause, prev: w.prev, short: w.standsIn(), from: w.from,
			chain: append(w.chain[:len(w.chain):len(w.chain)], c.chainID(w.hash)),
			done:  make(chan struct{}), ticket: governor.Ticket{Class: w.class, Depth: depthOf(w.chain, w.until), Until: c.govTime(max(w.until, 0))},
		}
	})
	if !started {
		c.life.end()
		return f, false, c.boarded(f, w.class, w.chain, w.until)
	}
	if !c.gather(f, w.class, w.chain) {
		go c.fly(f)
	}
	return f, true, nil
}

// govTime converts a time of this cache's clock to the governor's clock, which may be shared.
func (c *core) govTime(at int64) int64 {
	if at <= 0 {
		return at
	}
	return max(clock.Later(c.gov.Time(), time.Duration(at-c.clock.Now())), 1)
}

// fly runs a flight: it checks the owned tier again, waits for a permit, loads, and commits. It ends when the loader
// has really returned.
func (c *core) fly(f *flight) {
	defer c.life.end()

	if c.needless(f) {
		return
	}
	if c.inherit(f) {
		return
	}
	if err := c.admit(c.ctx, f); err != nil {
		c.finish(f, c.refused(f, err))
		return
	}
	c.gov.EarnRetry()

	base := c.ctx
	if f.from != (Trace{}) {
		base = context.WithValue(base, causeKey{}, f.from)
	}
	load, stop := context.WithTimeout(base, c.cfg.Origin.Timeout)
	defer stop()
	expired := make(chan struct{})
	disarm := context.AfterFunc(load, func() {
		defer close(expired)
		c.overrun(f, load)
	})
	fill := c.front.newFill(f)
	err := ErrGoexit // remains if the loader ends the goroutine
	holds := true    // a permit, and a place among the key's loads
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{Value: p, Stack: debug.Stack()}
		}
		if isContext(load, err) && c.ctx.Err() == nil { // whether or not overrun came first
			err = fmt.Errorf("%w (%w)", ErrTimeout, err)
		}
		cost := time.Duration(c.clock.Now() - f.began)
		if holds {
			c.ended(f, err, cost)
			c.flights.returned(f)
		}
		c.landed(f, fill, err, cost)
		if !disarm() {
			<-expired
		}
	}()
	for try := 0; ; try++ {
		if err = fill.load(c.gov.AttemptContext(load, &f.ticket, f.chain)); err == nil || !hasMark(err, markRetry) {
			return
		}
		again := false
		if again, holds = c.retry(load, f, try, err); !again {
			return
		}
		err, fill = ErrGoexit, c.front.newFill(f)
	}
}

// needless ends a flight that has nothing to load: what its starter missed may have been filled, or have
// failed, before it became the live one.
func (c *core) needless(f *flight) bool {
	e := c.valid(f.key, f.hash, c.clock.Now())
	return e != nil && e != f.prev && c.clock.Now() < e.Soft && c.flights.skip(f, e, c.stillValid(f))
}

// permit waits for a permit. The error is an *OverloadedError, or the cause of ctx's end.
func permit(ctx context.Context, g *governor.Governor, t *governor.Ticket) error {
	err := g.Acquire(ctx, t)
	if r, ok := err.(*governor.Refusal); ok {
		return overloaded(r)
	}
	return err
}

// admit waits for a place among the key's loads, then for a permit, and counts the load as begun.
func (c *core) admit(ctx context.Context, f *flight) error {
	if err := c.flights.reserve(ctx, f, c.cfg.Origin.Timeout); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = overloaded(&governor.Refusal{Why: governor.KeyBusy, After: c.cfg.Origin.Timeout})
		}
		return err
	}
	if err := permit(ctx, c.gov, &f.ticket); err != nil {
		c.flights.vacate(f)
		return err
	}
	if !c.flights.begin(f, c.fences, c.clock.Now) {
		c.flights.vacate(f)
		c.gov.Release(&f.ticket, governor.Void, 0)
		return context.DeadlineExceeded
	}
	c.stats.begun(f.cause, c.clock.Now())
	return nil
}

// ended counts a load that has returned, and gives back its permit.
func (c *core) ended(f *flight, err error, cost time.Duration) {
	out := outcomeOf(err)
	if c.ctx.Err() != nil && errors.Is(err, c.ctx.Err()) {
		out = governor.Void
	}
	c.stats.observe(cost, c.clock.Now())
	c.gov.Release(&f.ticket, out, cost)
	c.tellBreaker()
	c.drillEnded(f, out)
}

// retry prepares the next attempt of a load that failed with a retryable err: it waits for the attempt's time and
// permit. holds: the flight holds a permit, either that of the failed attempt or that of the next one.
func (c *core) retry(load context.Context, f *flight, try int, err error) (again, holds bool) {
	p := c.cfg.Origin.Retry
	delay := p.backoff(try, c.dice.float64())
	if deadline, _ := load.Deadline(); try >= p.Most || load.Err() != nil || time.Until(deadline) <= delay {
		return false, true
	}
	if !c.gov.TakeRetry() {
		c.stats.noRetry.Add(1)
		return false, true
	}
	cost := time.Duration(c.clock.Now() - f.began)
	if !c.flights.pause(f) {
		return false, true
	}
	c.ended(f, err, cost)
	c.stats.results[resultError].Add(1)
	c.stats.retries.Add(1)
	if sleep(load, delay) != nil || c.admit(load, f) != nil {
		return false, false
	}
	return true, true
}

// finish ends a flight and counts the callers that it served.
func (c *core) finish(f *flight, res result) {
	c.flights.settle(f)
	callers, doomed := c.flights.finish(f, res, c.stillValid(f))
	c.stats.served.Add(callers)
	if doomed {
		c.stats.doomed.Add(1)
	}
}

// stillValid returns the check that a flight makes before it hands out a copy from before the load. A fence that came
// after the copy was found may be forgotten already; then the copy has left the owned tier as well.
func (c *core) stillValid(f *flight) func(e *store.Entry) bool {
	return func(e *store.Entry) bool {
		if !c.fences.OwnedValid(f.key, f.hash, e.Stamp, e.Handed) || c.fences.Tagged(e.Tags) {
			return false
		}
		now, ok := c.owned.Get(f.key)
		return ok && now == e || !c.fences.Covers(f.key, f.hash, e.Stamp)
	}
}

// overrun finishes a flight whose load has exceeded its time, or whose cache is closing. The load itself continues
// until it returns.
func (c *core) overrun(f *flight, load context.Context) {
	if !c.flights.settle(f) {
		return
	}
	if c.ctx.Err() != nil {
		c.finish(f, result{err: ErrClosed})
		return
	}
	c.stats.results[resultTimeout].Add(1)
	c.gov.Overran(&f.ticket)
	c.tellBreaker()
	c.finish(f, c.failed(f, ErrTimeout))
}

// landed finishes a flight whose load has returned, unless it was finished before.
func (c *core) landed(f *flight, fill loading, err error, cost time.Duration) {
	if !c.flights.settle(f) {
		c.stats.results[resultOverran].Add(1)
		return
	}
	finished := false
	defer func() { // a codec may end the goroutine; nobody else would finish the flight
		if !finished {
			c.finish(f, c.failed(f, ErrGoexit))
		}
	}()
	c.land(f, fill, err, cost)
	finished = true
}

// land is landed for the caller that has to finish the flight.
func (c *core) land(f *flight, fill loading, err error, cost time.Duration) {
	e := &store.Entry{Stamp: f.stamp, Loaded: f.began, Cost: cost}
	res, r := result{e: e, fill: fill}, fill.state()
	switch {
	case err == nil && r.keep:
		e.Value = f.prev.Value
		err = fill.unpack(e.Value) // the loader has had access to the other copy
	case err == nil:
		e.Value, err = fill.pack()
	case errors.Is(err, ErrNotFound):
		e.Flags |= store.NotFound
		res.fill, err = nil, nil
	}
	if err == nil {
		e.Tags, err = r.tagged(f.wide)
	}
	if err == nil && e.Flags&store.NotFound == 0 {
		err = c.cfg.Freshness.allows(r.ttl)
	}
	if err != nil {
		if c.ctx.Err() != nil {
			c.finish(f, result{err: ErrClosed})
			return
		}
		if errors.Is(err, ErrTimeout) {
			c.stats.results[resultTimeout].Add(1)
		} else {
			c.stats.results[resultError].Add(1)
		}
		if errors.Is(err, ErrOverloaded) { // a fill that the loader waited for got no permit: that may change in a moment
			c.finish(f, c.refused(f, &FillError{Namespace: c.cfg.Namespace, Key: f.key, Owner: c.self, Err: err}))
			return
		}
		c.finish(f, c.failed(f, err))
		return
	}
	now := c.clock.Now()
	c.loads.Add(f.hash, e.Loaded)
	c.setExpiry(e, lifespan{r.ttl, r.stale}, f.short && !c.owns(f.hash), now)
	if r.drop || now >= e.Hard {
		e.Flags |= store.Passing
	}
	if e.Flags&store.NotFound != 0 {
		c.stats.results[resultNotFound].Add(1)
	} else {
		c.stats.results[resultOK].Add(1)
	}
	if r.ttl > 0 && e.Flags&store.Passing == 0 {
		c.journal.StoredLife(e.Hard - e.Loaded)
	}
	if e.Version = r.versionOf(); e.Version != 0 && c.fences.Behind(f.key, f.hash, e.Version) {
		e.Flags |= store.Passing
		c.stats.results[resultBehind].Add(1)
		c.finish(f, res)
		return
	}
	e.Etag = c.etag(e)
	stored := !c.fences.Tagged(e.Tags) && c.fences.Commit(f.key, f.hash, fence.Claim{Stamp: e.Stamp, Began: e.Loaded}, func() {
		if e.Flags&store.Passing == 0 {
			c.owned.Set(f.key, e)
		} else {
			c.owned.Delete(f.key)
		}
	})
	if !stored {
		c.stats.results[resultFenced].Add(1)
	}
	c.finish(f, res)
}

// owns reports whether this node owns a key in the present view.
func (c *core) owns(hash uint64) bool {
	if c.cfg.Cluster == nil {
		return true
	}
	view := c.cfg.Cluster.View()
	return view.OwnerOf(view.PartitionOf(hash)).Name == c.self
}

// setExpiry sets e's soft and hard expiry from the contract and from the value's own lifespan.
func (c *core) setExpiry(e *store.Entry, own lifespan, short bool, now int64) {
	f, ttl, stale := &c.cfg.Freshness, own.ttl, own.windows(&c.cfg.Freshness)
	if e.Flags&store.NotFound != 0 {
		e.Soft = e.Loaded + int64(f.NegativeTTL)
		e.SWR, e.Hard = e.Soft, e.Soft
	} else {
		if ttl == 0 {
			ttl = f.TTL - time.Duration(f.Jitter*c.dice.float64()*float64(f.TTL))
		}
		e.Soft = e.Loaded + int64(ttl)
		e.SWR = e.Soft + int64(stale.WhileRevalidate)
		e.Hard = e.Soft + int64(max(stale.WhileRevalidate, stale.IfError))
	}
	if short {
		c.standIn(e, now)
	}
}

// standIn gives e, which no other goroutine has yet, the times of a copy that a stand-in owner keeps.
func (c *core) standIn(e *store.Entry, now int64) {
	full := &store.Expiry{Soft: e.Soft, SWR: e.SWR, Hard: e.Hard}
	e.Change(func(r *store.Rare) { r.Full = full })
	c.stood.Store(true)
	end := now + int64(successorTTL)
	e.Soft, e.SWR, e.Hard = min(e.Soft, end), min(e.SWR, end), min(e.Hard, end)
}

// failed returns the result of a flight whose load failed. A copy within StaleIfError is served and waits before it is
// tried again. Without a copy the error is remembered.
func (c *core) failed(f *flight, err error) result {
	now := c.clock.Now()
	errorTTL := int64(c.cfg.Freshness.ErrorTTL)
	wrapped := &FillError{Namespace: c.cfg.Namespace, Key: f.key, Owner: c.self, Err: err}
	res := result{err: wrapped}
	if e := c.valid(f.key, f.hash, now); e != nil && e.Flags&store.Failed == 0 {
		if late := c.postpone(f, e, now, errorTTL, store.StaleError); e.Flags&store.NotFound == 0 {
			res.e = late
		}
		return res
	}
	if errorTTL > 0 {
		e := &store.Entry{Stamp: f.stamp, Loaded: f.began, Flags: store.Failed, Rare: &store.Rare{Err: wrapped}}
		e.Soft = now + errorTTL
		e.SWR, e.Hard = e.Soft, e.Soft
		c.fences.Commit(f.key, f.hash, fence.Claim{Stamp: e.Stamp, Began: e.Loaded}, func() { c.owned.Set(f.key, e) })
	}
	return res
}

// postpone delays the next attempt to refresh e, by half of d to one and a half of d.
func (c *core) postpone(f *flight, e *store.Entry, now, d int64, why store.StaleReason) *store.Entry {
	late := *e
	again := now + d/2 + int64(c.dice.float64()*float64(d))
	late.Change(func(r *store.Rare) { r.Retry, r.Why = again, why })
	c.replace(f.key, f.hash, e, &late)
	return &late
}

// replace puts next into the owned tier instead of old, unless old has left it. An entry that is derived from another
// one must be stored this way, because a fill, a fence or a Put may have come since the other was read.
func (c *core) replace(key string, hash uint64, old, next *store.Entry) (replaced bool) {
	c.fences.Update(hash, func() {
		if now, ok := c.owned.Get(key); ok && now == old {
			c.owned.Set(key, next)
			replaced = true
		}
	})
	return replaced
}

// refused returns the result of a flight that got no permit. If there is a copy to serve, reads make no other attempt
// for as long as the governor says, at most for ErrorTTL.
func (c *core) refused(f *flight, err error) result {
	if c.ctx.Err() != nil {
		return result{err: ErrClosed}
	}
	res := result{err: err}
	var over *OverloadedError
	if errors.As(err, &over) && err == error(over) { // a nested fill's has been counted already
		c.stats.shed[over.why].Add(1)
	}
	now := c.clock.Now()
	if e := c.valid(f.key, f.hash, now); e != nil && e.Flags&(store.Failed|store.NotFound) == 0 {
		res.e = e
		if over != nil {
			res.e = c.postpone(f, e, now, min(int64(over.RetryAfter), int64(c.cfg.Freshness.ErrorTTL)), store.StaleShed)
		}
	}
	return res
}

// encode and decode turn a panic in a user's codec into an error.
func (c *Cache[V]) encode(v V) (b []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	b, err = c.codec.Append(nil, v)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	if len(b) > c.cfg.ValueLimit {
		return nil, fmt.Errorf("%w: %d bytes encoded, Config.ValueLimit is %d", ErrValueTooLarge, len(b), c.cfg.ValueLimit)
	}
	return b, nil
}

func (c *Cache[V]) decode(b []byte) (v V, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &undecodable{&PanicError{Value: p, Stack: debug.Stack()}}
		}
	}()
	v, err = c.codec.Decode(b)
	if err != nil {
		return v, &undecodable{err}
	}
	return v, nil
}
