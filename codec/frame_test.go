package codec

import (
	"bytes"
	"encoding/binary"
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
	full := func(n int) []byte { return bytes.Repeat([]byte{0xff}, n) }
	chain := slices.Repeat([]uint64{math.MaxUint64}, MaxChain)
	return []Request{
		{Kind: KindGet, ID: 1, Namespace: []byte("products"), Key: []byte("sku-1")},
		{Kind: KindGet, ID: math.MaxUint64, Flags: FlagSuccessor | FlagMaxAge, Namespace: full(MaxNamespace), Schema: math.MaxUint64,
			View: math.MaxUint64, Timeout: time.Hour, MaxAge: time.Second, Fence: Mark{math.MaxUint64, math.MaxUint64}, Chain: chain, Key: full(MaxKey)},
		{Kind: KindInvalidate, ID: 7, Namespace: []byte("n"), Mark: Mark{Incarnation: 3, Seq: 4}, Keys: [][]byte{[]byte("a"), full(MaxKey)}},
		{Kind: KindInvalidate, ID: 8, Namespace: []byte("n"), Timeout: time.Millisecond, Keys: keys},
	}
}

func responses() []Response {
	text := []byte(strings.Repeat("e", MaxErrorText))
	list := []Response{
		{ID: 1, Status: StatusValue, Flags: FlagStale | FlagFilled, View: 5, Age: time.Second, Soft: -time.Minute, Hard: time.Hour,
			Held: time.Millisecond, Version: 1 << 60, Value: []byte("value")},
		{ID: 2, Status: StatusValue, Value: []byte{}},
		{ID: 3, Status: StatusNotFound, Soft: time.Second, Hard: time.Minute},
		{ID: 4, Status: StatusDone},
		{ID: 5, Status: StatusMoved, View: 9, Owner: []byte("node-2")},
	}
	for s := StatusFailed; s <= statusMax; s++ {
		list = append(list, Response{ID: 6, Status: s, RetryAfter: time.Second, Owner: []byte("node"), Text: text})
	}
	return list
}

// body takes a frame apart as a connection does.
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
	for _, r := range []*Request{&a, &b} { // empty and nil are the same
		r.Keys, r.Chain = append([][]byte{}, r.Keys...), append([]uint64{}, r.Chain...)
		for i, k := range r.Keys {
			r.Keys[i] = append([]byte{}, k...)
		}
		r.Key, r.Namespace = append([]byte{}, r.Key...), append([]byte{}, r.Namespace...)
	}
	return reflect.DeepEqual(a, b)
}

func sameResponse(a, b Response) bool {
	for _, r := range []*Response{&a, &b} {
		r.Value, r.Owner, r.Text = append([]byte{}, r.Value...), append([]byte{}, r.Owner...), append([]byte{}, r.Text...)
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
		for i := 0; i < len(b); i += step {
			wantErr(t, DecodeRequest(&got, kind, id, b[:i:i]), ErrFrame)
		}
		wantErr(t, DecodeRequest(&got, kind, id, append(slices.Clone(b), 0)), ErrFrame)
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
		for i := range len(b) - len(r.Value) { // a value has no length of its own
			wantErr(t, DecodeResponse(&got, id, b[:i:i]), ErrFrame)
		}
		if r.Status != StatusValue {
			wantErr(t, DecodeResponse(&got, id, append(slices.Clone(b), 0)), ErrFrame)
		}
	}
	var r Response
	for _, status := range []byte{0, byte(statusMax) + 1, 255} {
		wantErr(t, DecodeResponse(&r, 1, append([]byte{status, 0}, make([]byte, 16)...)), ErrFrame)
	}
}

// What the sender cannot keep to, it cuts: the receiver accepts every frame that is sent.
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
		{-1, 0, 0, -1000}, // what is past stays past
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

// Counts and lengths over the limits are refused although the bytes are there.
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
		"keys":          {KindInvalidate, join(head(1), []byte{0}, over(MaxKeysPerFrame+1))},
		"one of keys":   {KindInvalidate, join(head(1), []byte{0, 1}, over(MaxKey+1))},
		"number":        {KindGet, join(head(1), bytes.Repeat([]byte{0xff}, 11))},
		"count of 2^64": {KindInvalidate, join(head(1), []byte{0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})},
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
	r.Release() // of nothing
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
