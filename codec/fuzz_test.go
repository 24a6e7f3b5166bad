package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"testing"
	"time"
)

// fuzzed decodes b into V. Decode must not panic, and must stay within the memory that the codec promises. If
// it succeeds, the value must encode and decode again.
//
// A few bytes of a value can legitimately stand for many in memory, so the bound is not four times the input
// as it is for frames. The check rejects a value whose plan costs more than allocRatio bytes per byte, or
// allocMost in all, but accepts up to allocFloor. The copies of the contents come on top.
func fuzzed[V any](t *testing.T, c Codec[V], b []byte) {
	before := bytes.Clone(b)
	var v V
	var err error
	most := uint64(allocFloor + min(len(b)*allocRatio, allocMost) + 8*len(b) + 64<<10)
	atMost(t, most, func() { v, err = c.Decode(b) })
	if !bytes.Equal(b, before) {
		t.Errorf("%T: src is changed", v)
	}
	if err != nil {
		wantErr(t, err, ErrValue)
		return
	}
	out, err := c.Append(nil, v)
	if err != nil { // a value can be wider than the bytes it came from
		return
	}
	if _, err := c.Decode(out); err != nil {
		t.Errorf("%T: % .50x decodes, encodes to % .50x, which does not: %v", v, b, out, err)
	}
}

type narrow struct {
	N int
	S []string
	M map[string]*narrow
	A [2]uint8
	B []byte
	T *time.Time
}

func FuzzCheckMsgpack(f *testing.F) {
	for _, b := range hostile() {
		f.Add(b)
	}
	for _, b := range [][]byte{{0xdd, 0xff, 0xff, 0xff, 0xff}, {0xc6, 0xff, 0xff, 0xff, 0xff}, {0xdf, 0x7f, 0xff, 0xff, 0xff}} {
		f.Add(join([]byte{0x81, 0xa1, 'x'}, b)) // in a field that is skipped
		f.Add(join([]byte{0x81, 0xa1, 'S'}, b)) // and in a field that is not skipped
	}
	for _, head := range []byte{0xc6, 0xc9, 0xdb, 0xdd, 0xdf} {
		for _, n := range []uint32{0, MaxElements, MaxElements + 1, 1 << 31, 1<<32 - 1} {
			f.Add(append(binary.BigEndian.AppendUint32([]byte{head}, n), 0))
		}
	}
	addStrangers(func(b []byte) { f.Add(b) })
	f.Add(tokens(f))
	p := sample()
	b := ok[[]byte](f)(Msgpack[product]().Append(nil, p))
	for i := range b {
		f.Add(b[:i])
	}
	f.Add(append(b, 0))
	n := narrow{1, []string{"a"}, map[string]*narrow{"k": {T: new(time.Time)}}, [2]uint8{3, 4}, []byte("b"), &p.When}
	b = ok[[]byte](f)(Msgpack[narrow]().Append(nil, n))
	for i := range b {
		f.Add(b[:i+1])
	}
	f.Add([]byte{0xd7, 0xff, 0xdf, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0})
	f.Add([]byte{0x93, 0xd5, 0x80, 0x81, 0xa5, 0xc6, 0, 0, 0, 1, 0x91, 0xc0})
	var (
		anything = Msgpack[any]()
		list     = Msgpack[[]narrow]()
		one      = Msgpack[narrow]()
		products = Msgpack[product]()
		texts    = Msgpack[map[string]string]()
		own      = Msgpack[[]dict]()
		times    = Msgpack[map[time.Time]time.Time]()
		keys     = Msgpack[map[any]any]()
		blobs    = Msgpack[[][]byte]()
	)
	f.Fuzz(func(t *testing.T, b []byte) {
		atMost(t, 8<<10, func() { CheckMsgpack(b) })
		fuzzed(t, anything, b)
		fuzzed(t, list, b)
		fuzzed(t, one, b)
		fuzzed(t, products, b)
		fuzzed(t, texts, b)
		fuzzed(t, own, b)
		fuzzed(t, times, b)
		fuzzed(t, keys, b)
		fuzzed(t, blobs, b)
		if CheckMsgpack(b) != nil {
			if _, err := anything.Decode(b); err == nil {
				t.Error("decodes although the check refuses it")
			}
		}
	})
}

func FuzzRoundTrip(f *testing.F) {
	f.Add("", int64(0), []byte(nil), uint8(0), 0.0)
	f.Add("text", int64(-1), []byte("bytes"), uint8(3), 1.5)
	f.Add(string(make([]byte, 300)), int64(1<<40), make([]byte, 300), uint8(40), -1e300)
	plain := Msgpack[narrow]()
	packed := ok[Codec[narrow]](f)(Compressed(plain, Compression{Threshold: 1}))
	f.Fuzz(func(t *testing.T, s string, n int64, b []byte, count uint8, x float64) {
		at := time.Unix(n%1e12, int64(count)*1e6)
		v := narrow{N: int(n), S: []string{}, M: map[string]*narrow{}, A: [2]uint8{count, 1}, B: append([]byte{}, b...), T: &at}
		for range count % 50 {
			v.S = append(v.S, s)
		}
		v.M[s] = &narrow{N: int(count)}
		for _, c := range []Codec[narrow]{plain, packed} {
			out := ok[[]byte](t)(c.Append(nil, v))
			got := ok[narrow](t)(c.Decode(out))
			if !got.T.Equal(*v.T) {
				t.Errorf("time %v, want %v", got.T, v.T)
			}
			got.T = v.T
			if !reflect.DeepEqual(got, v) {
				t.Errorf("got %+v, want %+v", got, v)
			}
		}
	})
}

func FuzzCompressed(f *testing.F) {
	const most = 1 << 20
	c := ok[Codec[[]byte]](f)(Compressed(Raw[[]byte](), Compression{Threshold: 1, MaxDecoded: most}))
	for _, v := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("0123456789"), 100), make([]byte, most)} {
		b := ok[[]byte](f)(c.Append(nil, v))
		for i := range min(len(b), 64) {
			f.Add(b[:i])
		}
		f.Add(b)
	}
	f.Add([]byte{2})
	for _, n := range []uint64{0, most, most + 1, 1 << 31, 1<<32 - 1, 1 << 63} {
		f.Add(append(binary.AppendUvarint([]byte{1}, n), 0))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var v []byte
		var err error
		atMost(t, 2*most+uint64(2*len(b))+64<<10, func() { v, err = c.Decode(b) })
		if err != nil {
			wantErr(t, err, ErrValue)
			return
		}
		if len(v) > max(most, len(b)) {
			t.Errorf("%d bytes, the limit is %d", len(v), most)
		}
		if len(v) <= most {
			again := ok[[]byte](t)(c.Decode(ok[[]byte](t)(c.Append(nil, v))))
			if !bytes.Equal(again, v) {
				t.Error("another value after a second round")
			}
		}
	})
}

func FuzzFrameLength(f *testing.F) {
	const limit = 1 << 20
	for _, n := range []uint32{0, FrameMin - 1, FrameMin, limit, limit + 1, 1 << 31, 1<<32 - 1} {
		b := binary.BigEndian.AppendUint32(nil, n)
		for i := range b {
			f.Add(b[:i], limit)
		}
		f.Add(b, limit)
		f.Add(b, -1)
		f.Add(b, 0)
	}
	f.Fuzz(func(t *testing.T, b []byte, limit int) {
		n, err := FrameLength(b, limit)
		if err != nil {
			wantErr(t, err, ErrFrame)
			return
		}
		if n < FrameMin || n > limit || uint32(n) != binary.BigEndian.Uint32(b) {
			t.Errorf("% x, limit %d: %d", b, limit, n)
		}
	})
}

// addStrangers adds inputs that are neither frames nor values.
func addStrangers(add func([]byte)) {
	add([]byte("GET / HTTP/1.1\r\nHost: n\r\n\r\n"))
	add([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"))
	add(bytes.Repeat([]byte{0x80}, 1<<14))
}

// addBodies adds each body complete, cut at some points, and with a surplus byte. The round-trip tests cut at
// every point; as seeds that many would keep the fuzzer from anything else.
func addBodies(f *testing.F, kind Kind, body []byte) {
	for i := 0; i <= len(body); i += 1 + len(body)/12 {
		f.Add(uint8(kind), body[:i])
	}
	f.Add(uint8(kind), body)
	f.Add(uint8(kind), append(bytes.Clone(body), 0))
}

func FuzzDecodeRequest(f *testing.F) {
	for _, r := range requests() {
		kind, _, b := body(f, AppendRequest(nil, &r))
		addBodies(f, kind, b)
	}
	_, _, get := body(f, AppendRequest(nil, &requests()[0]))
	for kind := range 256 {
		f.Add(uint8(kind), get)
	}
	for _, kind := range []Kind{KindGet, KindGetMany, KindInvalidate} {
		addStrangers(func(b []byte) { f.Add(uint8(kind), b) })
		for _, n := range []uint64{0, MaxNamespace, MaxNamespace + 1, 1 << 31, 1<<32 - 1, 1 << 63} {
			f.Add(uint8(kind), append(binary.AppendUvarint([]byte{0}, n), make([]byte, 2*MaxNamespace)...)) // the namespace's length
		}
		before := make([]byte, 1+1+8+8+1+1) // flags, namespace, schema, view, timeout, mark or fence
		for _, n := range []uint64{0, MaxChain, MaxChain + 1, MaxKey, MaxKey + 1, MaxKeysPerGet, MaxKeysPerGet + 1, MaxKeysPerFrame, MaxKeysPerFrame + 1, 1 << 31, 1<<32 - 1, 1 << 63} {
			count := binary.AppendUvarint(bytes.Clone(before), n)
			f.Add(uint8(kind), append(bytes.Clone(count), make([]byte, n&(1<<13-1))...))
			f.Add(uint8(kind), count)
			f.Add(uint8(kind), append(binary.AppendUvarint(append(bytes.Clone(before), 1), n), make([]byte, MaxKey)...)) // a key's length
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		var r, again Request
		var err error
		// A name takes at least two bytes on the wire, and its slice takes 24. The maximum number of names
		// takes 96 KiB, which is within four times the input from three bytes per name on.
		atMost(t, uint64(4*max(len(b), 3*MaxKeysPerFrame)+64<<10), func() { r = Request{}; err = DecodeRequest(&r, Kind(kind), 7, b) })
		if errors.Is(err, ErrUnsupported) {
			return
		}
		if err != nil {
			wantErr(t, err, ErrFrame)
			return
		}
		k, id, b2 := body(t, AppendRequest(nil, &r))
		if err := DecodeRequest(&again, k, id, b2); err != nil || !sameRequest(r, again) {
			t.Errorf("%+v, then %+v, %v", r, again, err)
		}
	})
}

func FuzzDecodeResponse(f *testing.F) {
	for _, r := range responses() {
		kind, _, b := body(f, AppendResponse(nil, &r))
		addBodies(f, kind, b)
	}
	addStrangers(func(b []byte) { f.Add(uint8(KindAnswer), b) })
	for status := range 256 {
		f.Add(uint8(KindAnswer), append([]byte{byte(status)}, make([]byte, 40)...))
	}
	f.Fuzz(func(t *testing.T, _ uint8, b []byte) {
		var r, again Response
		var err error
		atMost(t, uint64(4*len(b)+64<<10), func() { r = Response{}; err = DecodeResponse(&r, 7, b) })
		if err != nil {
			wantErr(t, err, ErrFrame)
			return
		}
		_, id, b2 := body(t, AppendResponse(nil, &r))
		if err := DecodeResponse(&again, id, b2); err != nil || !sameResponse(r, again) {
			t.Errorf("%+v, then %+v, %v", r, again, err)
		}
	})
}

func FuzzDecodeNews(f *testing.F) {
	b := AppendNews(nil, allNews())
	for i := range b {
		f.Add(b[:i])
	}
	f.Add(b)
	f.Add(append(bytes.Clone(b), 0))
	f.Add(AppendNews(nil, &News{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var n, again News
		var err error
		atMost(t, uint64(40*len(b)+64<<10), func() { n = News{}; err = DecodeNews(&n, b) })
		if errors.Is(err, ErrUnsupported) {
			return
		}
		if err != nil {
			wantErr(t, err, ErrFrame)
			return
		}
		out := AppendNews(nil, &n)
		if len(out) > n.Size() {
			t.Errorf("%d bytes, Size is %d", len(out), n.Size())
		}
		if err := DecodeNews(&again, out); err != nil || !sameNews(n, again) {
			t.Errorf("%+v, then %+v, %v", n, again, err)
		}
	})
}

func FuzzNextAnswer(f *testing.F) {
	var parts Answers
	for _, r := range responses() {
		if r.Status != StatusMany && r.Status != StatusSynced && r.Status != StatusDone {
			parts.Add(&r)
		}
	}
	f.Add([]byte("\x11\x0e0000000000000000")) // a part with StatusSynced
	b := parts.appendTo(nil)
	for i := 0; i <= len(b); i += 1 + len(b)/500 {
		f.Add(b[:i])
	}
	f.Add(append(bytes.Clone(b), 0))
	f.Add(bytes.Repeat([]byte{0}, 1<<10))
	for _, n := range []uint64{1, 10, MaxAnswers, 1 << 31, 1<<32 - 1, 1 << 63} {
		f.Add(append(binary.AppendUvarint(nil, n), make([]byte, 40)...))
	}
	f.Add(binary.AppendUvarint(nil, 10)[:1])
	f.Add(append([]byte{10, byte(StatusMany)}, make([]byte, 9)...))
	addStrangers(func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		rest, n := b, 0
		for len(rest) > 0 {
			var r Response
			var err error
			last := rest
			// The fast path must give the same result as the slow path, whatever the previous part was.
			long, short := Response{}, Response{Status: StatusMoved, View: 3, Owner: []byte("n"), Tags: []uint32{1}, Why: 2, Age: 5}
			if after, ok := short.next(last); ok {
				size, at := binary.Uvarint(last)
				if err := DecodeResponse(&long, 0, last[at:at+int(size)]); err != nil || !sameResponse(long, short) || len(after) != len(last)-at-int(size) {
					t.Errorf("%+v, the long way %+v, %v", short, long, err)
				}
			}
			atMost(t, uint64(4*len(rest)+64<<10), func() { rest, err = NextAnswer(&r, rest) })
			if err != nil {
				wantErr(t, err, ErrFrame)
				return
			}
			if len(rest) >= len(last) {
				t.Fatalf("%d bytes are left of %d", len(rest), len(last))
			}
			if r.Status == StatusMany || r.Status == StatusSynced || r.Status == StatusDone {
				t.Errorf("a part with status %d", r.Status)
			}
			if n++; n > 100 {
				return
			}
			var parts Answers
			if !parts.Add(&r) {
				continue
			}
			var again Response
			if more, err := NextAnswer(&again, parts.appendTo(nil)); err != nil || len(more) > 0 || !sameResponse(r, again) {
				t.Errorf("%+v, then %+v, %v", r, again, err)
			}
		}
	})
}
