package codec

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func requests() []Request {
	keys := make([][]byte, MaxKeysPerFrame)
	for i := range keys {
		keys[i] = []byte{byte(i), byte(i >> 8)}
	}
	wants := make([]Wanted, MaxKeysPerGet)
	for i := range wants {
		wants[i].Key = keys[i]
	}
	full := func(n int) []byte { return bytes.Repeat([]byte{0xff}, n) }
	chain := slices.Repeat([]uint64{math.MaxUint64}, MaxChain)
	return []Request{
		{Kind: KindGet, ID: 1, Namespace: []byte("products"), Key: []byte("sku-1")},
		{Kind: KindGet, ID: math.MaxUint64, Flags: FlagSuccessor | FlagMaxAge, Namespace: full(MaxNamespace), Schema: math.MaxUint64,
			View: math.MaxUint64, Timeout: time.Hour, MaxAge: time.Second, Fence: Mark{math.MaxUint64, math.MaxUint64}, Chain: chain, Key: full(MaxKey)},
		{Kind: KindInvalidate, ID: 7, Namespace: []byte("n"), News: &News{
			Invalidations: []Invalidation{{Mark{Incarnation: 3, Seq: 4}, ScopeKeys, 0, [][]byte{[]byte("a"), full(MaxKey)}}}}},
		{Kind: KindInvalidate, ID: 8, Namespace: []byte("n"), Timeout: time.Millisecond, News: &News{
			Invalidations: []Invalidation{{Mark{5, 1}, ScopeKeys, 0, keys}}}},
		{Kind: KindInvalidate, ID: 9, Flags: FlagRelay, Target: full(MaxNamespace), News: allNews()},
		{Kind: KindGet, ID: 13, Flags: FlagTrace | FlagMaxAge | FlagHave, Trace: Trace{1, 16: 2, 24: 1}, MaxAge: time.Second, Have: 3, Namespace: []byte("n"), Key: []byte("k")},
		{Kind: KindGet, ID: 12, Flags: FlagNoFill | FlagHave, Have: math.MaxUint64 - 1, Namespace: []byte("n"), Key: []byte("k")},
		{Kind: KindPut, ID: 13, Namespace: []byte("n"), Fence: Mark{1, 2}, Version: math.MaxUint64, TTL: time.Minute, Tags: slices.Repeat([]uint32{7}, MaxTags), Key: full(MaxKey), Value: []byte("value")},
		{Kind: KindPut, ID: 14, Namespace: []byte("n"), Fence: Mark{1, 2}, Key: []byte("k")},
		{Kind: KindPut, ID: 15, Flags: FlagClock, Namespace: []byte("n"), Key: []byte("k")},
		{Kind: KindPut, ID: 16, Flags: FlagClock, Namespace: []byte("n"), Fence: Mark{1, 2}, Clock: Mark{math.MaxUint64, math.MaxUint64}, Since: -time.Second, Key: []byte("k"), Value: []byte("v")},
		{Kind: KindGetMany, ID: 18, Namespace: []byte("n"), Mode: ModeWait},
		{Kind: KindGetMany, ID: 19, Namespace: []byte("n"), Mode: ModeWarm, Chain: chain, Many: []Wanted{{Key: []byte("a")}, {Key: full(MaxKey), Fence: Mark{3, math.MaxUint64}, Have: math.MaxUint64}, {}}},
		{Kind: KindGetMany, ID: 20, Namespace: []byte("n"), Timeout: time.Second, Many: wants},
		{Kind: KindGet, ID: 15, Flags: FlagPrevious | FlagJoin, Namespace: []byte("n"), Key: []byte("k")},
		{Kind: KindPush, ID: 16, Namespace: []byte("n"), News: &News{}},
		{Kind: KindPush, ID: 17, Flags: FlagSuccessor, Namespace: []byte("n"), News: allNews(), Token: math.MaxUint64, Pushed: allPushed()},
		{Kind: KindSync, ID: 10, Namespace: []byte("n"), News: &News{}},
		{Kind: KindSync, ID: 11, Namespace: []byte("n"), News: allNews()},
	}
}

// allPushed returns copies of every sort.
func allPushed() []Pushed {
	return []Pushed{
		{Key: []byte("a"), Value: []byte("value"), Heat: MaxHeat, Age: time.Second, Soft: -time.Minute, Hard: time.Hour, Cost: time.Millisecond, Version: math.MaxUint64, Tags: slices.Repeat([]uint32{7}, MaxTags)},
		{Key: bytes.Repeat([]byte("k"), MaxKey), NotFound: true, Hard: time.Second, Soft: time.Second, Value: []byte{}},
		{Key: []byte{0}, Value: []byte{}, Tags: []uint32{1, math.MaxUint32}},
	}
}

// allNews returns News with one of everything.
func allNews() *News {
	return &News{
		Positions: []Position{{1, 2, time.Second}, {math.MaxUint64, math.MaxUint64, 0}},
		Bases:     []Base{{3, 4, true}, {5, math.MaxUint64, false}},
		Invalidations: []Invalidation{
			{Mark{1, 3}, ScopeKeys, 0, [][]byte{[]byte("a"), {0}}},
			{Mark{1, 4}, ScopeTags, math.MaxUint64, [][]byte{bytes.Repeat([]byte("t"), MaxTag)}},
			{Mark{math.MaxUint64, math.MaxUint64}, ScopeAll, 0, nil},
		},
		Life: time.Hour, More: true,
	}
}

func responses() []Response {
	text := []byte(strings.Repeat("e", MaxErrorText))
	list := []Response{
		{ID: 1, Status: StatusValue, Flags: FlagStale | FlagFilled | FlagTagged, Why: 3, Incarnation: 5, Tags: make([]uint32, MaxTags), Age: time.Second, Soft: -time.Minute, Hard: time.Hour,
			Held: time.Millisecond, Version: 1 << 60, Value: []byte("value")},
		{ID: 2, Status: StatusValue, Value: []byte{}},
		{ID: 3, Status: StatusSame, Flags: FlagTagged | FlagPassing, Age: time.Second, Hard: time.Minute, Tags: []uint32{1}},
		{ID: 4, Status: StatusValue, Etag: math.MaxUint64, Value: []byte{1}},
		{ID: 3, Status: StatusNotFound, Soft: time.Second, Hard: time.Minute},
		{ID: 3, Status: StatusNotFound, Flags: FlagTagged, Tags: []uint32{1, math.MaxUint32}},
		{ID: 4, Status: StatusDone},
		{ID: 4, Status: StatusDone, Incarnation: math.MaxUint64, Seq: math.MaxUint64, Members: [][]byte{[]byte("node-3"), []byte("node-4")}},
		{ID: 4, Status: StatusSynced, Incarnation: 7, Value: AppendNews(nil, allNews())},
		{ID: 5, Status: StatusMoved, View: 9, Owner: []byte("node-2")},
	}
	var parts Answers
	for i := range list {
		parts.Add(&list[i])
	}
	list = append(list, Response{ID: 7, Status: StatusPending}, Response{ID: 7, Status: StatusLeftOut, Incarnation: 3},
		Response{ID: 7, Status: StatusMany, Value: parts.appendTo(nil)})
	for s := StatusFailed; s <= StatusBusy; s++ {
		list = append(list, Response{ID: 6, Status: s, RetryAfter: time.Second, Owner: []byte("node"), Text: text})
	}
	return list
}

// body takes a frame apart the way a connection does.
func body(t testing.TB, frame []byte) (Kind, uint64, []byte) {
	t.Helper()
	n := ok[int](t)(FrameLength(frame, len(frame)))
	if n != len(frame)-FrameHeader {
		t.Fatalf("length %d in a frame of %d", n, len(frame))
	}
	kind, id, b, err := FrameKind(frame[FrameHeader:])
	if err != nil {
		t.Fatal(err)
	}
	return kind, id, b
}

func sameRequest(a, b Request) bool {
	for _, r := range []*Request{&a, &b} { // empty and nil are equal
		r.Chain = append([]uint64{}, r.Chain...)
		r.Key, r.Namespace, r.Target = append([]byte{}, r.Key...), append([]byte{}, r.Namespace...), append([]byte{}, r.Target...)
		r.Tags, r.Value = append([]uint32{}, r.Tags...), append([]byte{}, r.Value...)
		r.Many = append([]Wanted{}, r.Many...)
		for i := range r.Many {
			r.Many[i].Key = append([]byte{}, r.Many[i].Key...)
		}
	}
	if (a.News == nil) != (b.News == nil) || a.News != nil && !sameNews(*a.News, *b.News) {
		return false
	}
	a.News, b.News = nil, nil
	return reflect.DeepEqual(a, b)
}

func sameNews(a, b News) bool {
	return slices.Equal(a.Positions, b.Positions) && slices.Equal(a.Bases, b.Bases) && a.Life == b.Life && a.More == b.More &&
		slices.EqualFunc(a.Invalidations, b.Invalidations, func(a, b Invalidation) bool {
			return a.Mark == b.Mark && a.Scope == b.Scope && a.Version == b.Version && slices.EqualFunc(a.Names, b.Names, bytes.Equal)
		})
}

func sameResponse(a, b Response) bool {
	for _, r := range []*Response{&a, &b} {
		r.Value, r.Owner, r.Text = append([]byte{}, r.Value...), append([]byte{}, r.Owner...), append([]byte{}, r.Text...)
		r.Tags, r.Members = append([]uint32{}, r.Tags...), append([][]byte{}, r.Members...)
	}
	return reflect.DeepEqual(a, b)
}

func TestRequestRoundTrip(t *testing.T) {
	var got Request
	for _, r := range requests() {
		frame := AppendRequest([]byte("before"), &r)
		if !bytes.HasPrefix(frame, []byte("before")) {
			t.Fatal("dst is lost")
		}
		kind, id, b := body(t, frame[len("before"):])
		if err := DecodeRequest(&got, kind, id, b); err != nil || !sameRequest(got, r) {
			t.Errorf("got %+v, %v, want %+v", got, err, r)
		}
		step := 1 + len(b)/2000
		for i := 0; i < len(b)-len(r.Value); i += step {
			wantErr(t, DecodeRequest(&got, kind, id, b[:i:i]), ErrFrame)
		}
		if kind != KindPut { // a put's value takes all remaining bytes
			wantErr(t, DecodeRequest(&got, kind, id, append(slices.Clone(b), 0)), ErrFrame)
		}
		if size := r.Size(); len(frame) > size {
			t.Errorf("Size is %d, the frame has %d bytes", size, len(frame))
		}
		wantErr(t, DecodeRequest(&got, KindAnswer, id, b), ErrFrame)
	}
}

func TestResponseRoundTrip(t *testing.T) {
	for _, r := range responses() {
		frame := AppendResponse(nil, &r)
		kind, id, b := body(t, frame)
		var got Response
		if err := DecodeResponse(&got, id, b); err != nil || kind != KindAnswer || !sameResponse(got, r) {
			t.Errorf("got %+v, %v, want %+v", got, err, r)
		}
		for i := range len(b) - len(r.Value) { // a value does not have a length field of its own
			wantErr(t, DecodeResponse(&got, id, b[:i:i]), ErrFrame)
		}
		if r.Status != StatusValue && r.Status != StatusSynced && r.Status != StatusMany {
			wantErr(t, DecodeResponse(&got, id, append(slices.Clone(b), 0)), ErrFrame)
		}
	}
	var r Response
	wantErr(t, DecodeResponse(&r, 1, make([]byte, 18)), ErrFrame)
}

// TestNewerIsUnsupported checks that input from a later version is distinguished from malformed input.
func TestNewerIsUnsupported(t *testing.T) {
	var req Request
	for _, kind := range []Kind{10, 15, 19, 255} {
		wantErr(t, DecodeRequest(&req, kind, 1, nil), ErrUnsupported)
	}
	for kind, known := range map[Kind]uint8{KindGetMany: 0, KindPut: FlagClock, KindInvalidate: FlagRelay, KindSync: FlagRelay, KindPush: FlagRelay | FlagSuccessor} {
		for bit := range 8 {
			_, _, b := body(t, AppendRequest(nil, &Request{Kind: kind, Key: []byte("k")}))
			if b[0] = 1 << bit; b[0]&^known != 0 {
				wantErr(t, DecodeRequest(&req, kind, 1, b), ErrUnsupported)
			}
		}
	}
	copies := allPushed()
	_, _, b := body(t, AppendRequest(nil, &Request{Kind: KindPush, Namespace: []byte("n"), Pushed: copies[2:]}))
	flags := len(b) - (1 + 1 + 1 + 1 + 1 + 1 + 1 + 2*4 + 2 + 1)
	b[flags] |= 1 << 3
	wantErr(t, DecodeRequest(&req, KindPush, 1, b), ErrUnsupported)

	for _, status := range []byte{byte(statusMax) + 1, byte(StatusMany) + 1, 255} {
		var r Response
		b := append([]byte{status, 0, 0, 0, 0, 0, 0, 0, 0, 5}, "what is this"...)
		if err := DecodeResponse(&r, 1, b); err != nil || r.Status != StatusUnsupported || r.Incarnation != 5 || !strings.Contains(string(r.Text), fmt.Sprint(status)) {
			t.Errorf("status %d: %+v, %v", status, r, err)
		}
	}
}

// TestResponseIsCut checks that the sender cuts what exceeds the limits, so that the receiver accepts every
// frame that is sent.
func TestResponseIsCut(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 10_000)
	for s := StatusValue; s <= statusMax; s++ {
		r := Response{Status: s, Owner: long, Text: long, Value: []byte("v"), Age: math.MaxInt64, Soft: math.MinInt64,
			Hard: math.MaxInt64, Held: math.MaxInt64, RetryAfter: math.MaxInt64}
		_, id, b := body(t, AppendResponse(nil, &r))
		var got Response
		if err := DecodeResponse(&got, id, b); err != nil {
			t.Errorf("status %d: %v", s, err)
		}
	}
}

func TestDurations(t *testing.T) {
	const top = maxMicros * time.Microsecond
	for _, c := range []struct{ d, up, down, soft time.Duration }{
		{0, 0, 0, 0},
		{1, 1000, 0, 0},
		{999, 1000, 0, 0},
		{1000, 1000, 1000, 1000},
		{1001, 2000, 1000, 1000},
		{-1, 0, 0, -1000}, // a point in the past stays in the past
		{-1000, 0, 0, -1000},
		{-1001, 0, 0, -2000},
		{math.MaxInt64, top, top, top},
		{math.MinInt64, 0, 0, -top},
	} {
		r := Response{Status: StatusValue, Age: c.d, Soft: c.d, Hard: c.d, Held: c.d}
		_, id, b := body(t, AppendResponse(nil, &r))
		var got Response
		if err := DecodeResponse(&got, id, b); err != nil {
			t.Fatal(c.d, err)
		}
		if got.Age != c.up || got.Hard != c.down || got.Held != c.down || got.Soft != c.soft {
			t.Errorf("%d: age %d, hard %d, held %d, soft %d", c.d, got.Age, got.Hard, got.Held, got.Soft)
		}
		q := Request{Kind: KindGet, Timeout: c.d}
		kind, id, b := body(t, AppendRequest(nil, &q))
		if err := DecodeRequest(&q, kind, id, b); err != nil || q.Timeout != c.up {
			t.Errorf("timeout %d: %d, %v", c.d, q.Timeout, err)
		}
	}
}

func TestFrameLength(t *testing.T) {
	const limit = 1 << 20
	for _, c := range []struct {
		n    uint32
		good bool
	}{
		{0, false}, {FrameMin - 1, false}, {FrameMin, true}, {limit, true}, {limit + 1, false}, {1 << 31, false}, {1<<32 - 1, false},
	} {
		n, err := FrameLength(binary.BigEndian.AppendUint32(nil, c.n), limit)
		if (err == nil) != c.good || err == nil && n != int(c.n) {
			t.Errorf("%d: %d, %v", c.n, n, err)
		}
	}
	for i := range FrameHeader {
		_, err := FrameLength(make([]byte, i), limit)
		wantErr(t, err, ErrFrame)
	}
	_, err := FrameLength([]byte{0xff, 0xff, 0xff, 0xff}, -1)
	wantErr(t, err, ErrFrame)
	_, _, _, err = FrameKind(make([]byte, FrameMin-1))
	wantErr(t, err, ErrFrame)
}

// TestRequestLimits checks that counts and lengths over the limits are rejected even if the bytes are
// present.
func TestRequestLimits(t *testing.T) {
	filler := make([]byte, 1<<20)
	head := func(namespace int) []byte {
		b := append([]byte{0}, binary.AppendUvarint(nil, uint64(namespace))...)
		return append(append(b, filler[:namespace]...), make([]byte, 17)...) // schema, view, no timeout
	}
	over := func(n int) []byte { return append(binary.AppendUvarint(nil, uint64(n)), filler...) }
	var r Request
	for name, c := range map[string]struct {
		kind Kind
		b    []byte
	}{
		"namespace":     {KindGet, head(MaxNamespace + 1)},
		"chain":         {KindGet, join(head(1), []byte{0}, over(MaxChain+1))},
		"key":           {KindGet, join(head(1), []byte{0, 0}, over(MaxKey+1))},
		"tags of a put": {KindPut, join(head(1), []byte{0, 0, 0}, over(MaxTags+1))},
		"key of a put":  {KindPut, join(head(1), []byte{0, 0, 0, 0}, over(MaxKey+1))},
		"keys of a get": {KindGetMany, join(head(1), []byte{0, 0}, over(MaxKeysPerGet+1))},
		"key of many":   {KindGetMany, join(head(1), []byte{0, 0, 1, 0, 0}, over(MaxKey+1))},
		"chain of many": {KindGetMany, join(head(1), over(MaxChain+1))},
		"positions":     {KindSync, join(head(1), over(MaxPositions+1))},
		"bases":         {KindSync, join(head(1), []byte{0}, over(MaxPositions+1))},
		"invalidations": {KindInvalidate, join(head(1), []byte{0, 0}, over(MaxKeysPerFrame+1))},
		"keys":          {KindInvalidate, join(head(1), []byte{0, 0, 1, 1}, make([]byte, 8), []byte{byte(ScopeKeys), 0}, over(MaxKeysPerFrame+1))},
		"one of keys":   {KindInvalidate, join(head(1), []byte{0, 0, 1, 1}, make([]byte, 8), []byte{byte(ScopeKeys), 0, 1}, over(MaxKey+1))},
		"one of tags":   {KindInvalidate, join(head(1), []byte{0, 0, 1, 1}, make([]byte, 8), []byte{byte(ScopeTags), 0, 1}, over(MaxTag+1))},
		"names of all":  {KindInvalidate, join(head(1), []byte{0, 0, 1, 1}, make([]byte, 8), []byte{byte(ScopeAll), 0}, over(1))},
		"target":        {KindInvalidate, join([]byte{FlagRelay}, head(1)[1:], over(MaxNamespace+1))},
		"copies":        {KindPush, join(head(1), make([]byte, 5), make([]byte, 8), over(MaxPushed+1))},
		"pushed key":    {KindPush, join(head(1), make([]byte, 5), make([]byte, 8), []byte{1, 0, 0, 0, 0, 0, 0, 0}, over(MaxKey+1))},
		"pushed tags":   {KindPush, join(head(1), make([]byte, 5), make([]byte, 8), []byte{1, 0, 0, 0, 0, 0, 0}, over(MaxTags+1))},
		"number":        {KindGet, join(head(1), bytes.Repeat([]byte{0xff}, 11))},
		"count of 2^64": {KindInvalidate, join(head(1), []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})},
	} {
		if err := DecodeRequest(&r, c.kind, 1, c.b); err == nil || !strings.Contains(err.Error(), "limit") && name != "number" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFramesDoNotAllocate(t *testing.T) {
	var buf []byte
	var q Request
	for _, r := range requests() {
		run := func() {
			buf = AppendRequest(buf[:0], &r)
			kind, id, b, _ := FrameKind(buf[FrameHeader:])
			if err := DecodeRequest(&q, kind, id, b); err != nil {
				t.Fatal(err)
			}
		}
		if n := testing.AllocsPerRun(20, run); n != 0 {
			t.Errorf("kind %d: %v allocations", r.Kind, n)
		}
	}
	var p Response
	for _, r := range responses() {
		run := func() {
			buf = AppendResponse(buf[:0], &r)
			_, id, b, _ := FrameKind(buf[FrameHeader:])
			if err := DecodeResponse(&p, id, b); err != nil {
				t.Fatal(err)
			}
		}
		if n := testing.AllocsPerRun(20, run); n != 0 {
			t.Errorf("status %d: %v allocations", r.Status, n)
		}
	}
}

func TestRelease(t *testing.T) {
	var r Response
	r.Release() // nothing to release
	released := 0
	buf := []byte("buffer")
	r.Value = buf[1:3]
	r.Own(buf, func(b []byte) {
		if &b[0] != &buf[0] || r.Value != nil {
			t.Error("another buffer, or still in use")
		}
		released++
	})
	r.Release()
	r.Release()
	if released != 1 {
		t.Errorf("released %d times", released)
	}
}

// TestNewsRefused checks that inconsistent News is rejected.
func TestNewsRefused(t *testing.T) {
	one := func(change func(n *News)) []byte {
		n := allNews()
		change(n)
		return AppendNews(nil, n)
	}
	var n News
	good := one(func(*News) {})
	if err := DecodeNews(&n, good); err != nil || !sameNews(n, *allNews()) {
		t.Fatalf("%+v, %v", n, err)
	}
	wantErr(t, DecodeNews(&n, one(func(n *News) { n.Invalidations[0].Scope = scopeMax + 1 })), ErrUnsupported)
	for name, b := range map[string][]byte{
		"no number":  one(func(n *News) { n.Invalidations[0].Mark.Seq = 0 }),
		"scope 0":    one(func(n *News) { n.Invalidations[0].Scope = 0 }),
		"all of one": one(func(n *News) { n.Invalidations[2].Names = [][]byte{{1}} }),
		"empty name": one(func(n *News) { n.Invalidations[0].Names[0] = nil }),
		"long tag":   one(func(n *News) { n.Invalidations[1].Names[0] = make([]byte, MaxTag+1) }),
		"no bool":    append(bytes.Clone(good[:len(good)-1]), 2),
		"too many":   append(bytes.Clone(good), 0),
		"nothing":    nil,
	} {
		if err := DecodeNews(&n, b); err == nil {
			t.Errorf("%s: accepted", name)
		} else {
			wantErr(t, err, ErrFrame)
		}
	}
	names := slices.Repeat([][]byte{{1}}, MaxKeysPerFrame)
	many := News{Invalidations: []Invalidation{{Mark{1, 1}, ScopeKeys, 0, names}, {Mark{1, 2}, ScopeTags, 0, names[:1]}}}
	wantErr(t, DecodeNews(&n, AppendNews(nil, &many)), ErrFrame)
	var r Response
	tags := AppendResponse(nil, &Response{Status: StatusValue, Flags: FlagTagged, Tags: make([]uint32, MaxTags+1)})
	wantErr(t, DecodeResponse(&r, 1, tags[FrameHeader+FrameMin:]), ErrFrame)
}
