package codec

import (
	"bytes"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

type inner struct {
	Name string
	Tags []string
	Blob []byte
}

type product struct {
	ID      int64
	Inner   inner
	Ptr     *inner
	List    []inner
	ByName  map[string]inner
	Counts  map[int]uint32
	Any     any
	When    time.Time
	Took    time.Duration
	Ratio   float64
	On      bool
	Array   [3]int16
	Sum     [4]byte
	Addr    netip.Addr
	Renamed string `msgpack:"r"`
	Skipped string `msgpack:"-"`
	//lint:ignore U1000 not encoded
	hidden   int
	Children []*product
	address
	*Extra
}

type address struct{ City, Street string }

// Extra is embedded by pointer.
type Extra struct{ Note string }

type pair[A, B any] struct {
	First  A
	Second B
}

// celsius encodes and decodes itself through msgpack's own interfaces.
type celsius struct{ milli int64 }

func (c celsius) EncodeMsgpack(e *msgpack.Encoder) error { return e.EncodeInt(c.milli) }
func (c *celsius) DecodeMsgpack(d *msgpack.Decoder) error {
	var err error
	c.milli, err = d.DecodeInt64()
	return err
}

// dict decodes itself and expects a map.
type dict struct{ m map[string]any }

func (c dict) EncodeMsgpack(e *msgpack.Encoder) error  { return e.Encode(c.m) }
func (c *dict) DecodeMsgpack(d *msgpack.Decoder) error { return d.Decode(&c.m) }

// raised panics in its own methods.
type raised struct{ N int }

func (raised) MarshalMsgpack() ([]byte, error)  { panic("boom") }
func (*raised) UnmarshalMsgpack(b []byte) error { panic("boom") }

// rude reads beyond its own value and requests that the decoder record it.
type rude struct{}

func (rude) EncodeMsgpack(e *msgpack.Encoder) error { return e.EncodeNil() }
func (*rude) DecodeMsgpack(d *msgpack.Decoder) error {
	for {
		if _, err := d.DecodeRaw(); err != nil {
			return err
		}
	}
}

func sample() product {
	in := inner{"n", []string{"a", "", "c"}, []byte{1, 2, 3}}
	return product{
		ID: -1 << 40, Inner: in, Ptr: &in, List: []inner{in, {}}, ByName: map[string]inner{"k": in}, Counts: map[int]uint32{-1: 7},
		Any: "text", When: time.Unix(1e9, 935_000_000).UTC(), Took: time.Second, Ratio: 0.1, On: true, Array: [3]int16{1, -2, 3},
		Sum: [4]byte{9, 8, 7, 6}, Addr: netip.MustParseAddr("::1"), Renamed: "r", Children: []*product{{Extra: &Extra{}}, nil},
		address: address{"c", "s"}, Extra: &Extra{"x"},
	}
}

func roundTrip[V any](t *testing.T, c Codec[V], v V) {
	t.Helper()
	b := ok[[]byte](t)(c.Append([]byte("before"), v))
	if !bytes.HasPrefix(b, []byte("before")) {
		t.Fatalf("%T: dst is lost: %.20q", v, b)
	}
	b = b[len("before"):]
	got := ok[V](t)(c.Decode(b))
	for i := range b { // the decoded value must not change with b
		b[i] = 0xc1
	}
	if !reflect.DeepEqual(got, v) {
		t.Errorf("%T: got %+v, want %+v", v, got, v)
	}
}

func TestMsgpackRoundTrip(t *testing.T) {
	roundTrip(t, Msgpack[product](), sample())
	p := sample()
	roundTrip(t, Msgpack[*product](), &p)
	roundTrip(t, Msgpack[*product](), nil)
	roundTrip(t, Msgpack[[]product](), []product{sample(), sample()})
	roundTrip(t, Msgpack[pair[string, pair[int, []byte]]](), pair[string, pair[int, []byte]]{"a", pair[int, []byte]{1, []byte("b")}})
	roundTrip(t, Msgpack[string](), "")
	roundTrip(t, Msgpack[string](), strings.Repeat("long", 50_000))
	roundTrip(t, Msgpack[[]byte](), []byte("bytes"))
	roundTrip(t, Msgpack[[]byte](), nil)
	roundTrip(t, Msgpack[[]byte](), make([]byte, 3<<20))
	roundTrip(t, Msgpack[[]string](), []string{"a", "b"})
	roundTrip(t, Msgpack[map[string]string](), map[string]string{"a": "b"})
	roundTrip(t, Msgpack[map[string]any](), map[string]any{"a": []any{int8(1), "x", nil, []byte("b")}})
	roundTrip(t, Msgpack[any](), nil)
	roundTrip(t, Msgpack[any](), any([]byte("b")))
	roundTrip(t, Msgpack[int](), -7)
	roundTrip(t, Msgpack[uint64](), 1<<63)
	roundTrip(t, Msgpack[float32](), 0.5)
	roundTrip(t, Msgpack[bool](), true)
	roundTrip(t, Msgpack[time.Duration](), time.Hour)
	roundTrip(t, Msgpack[time.Time](), time.Unix(1, 2).UTC())
	roundTrip(t, Msgpack[[]time.Time](), []time.Time{time.Unix(1, 0).UTC(), time.Unix(-1e10, 5).UTC()})
	roundTrip(t, Msgpack[[2][3]int](), [2][3]int{{1, 2, 3}, {4, 5, 6}})
	roundTrip(t, Msgpack[[16]byte](), [16]byte{1})
	roundTrip(t, Msgpack[struct{}](), struct{}{})
	roundTrip(t, Msgpack[[]celsius](), []celsius{{1}, {-5000}})
	roundTrip(t, Msgpack[dict](), dict{map[string]any{"k": "v"}})
	roundTrip(t, Msgpack[*big.Int](), big.NewInt(1<<40))
	roundTrip(t, Msgpack[[]struct {
		S string `msgpack:",intern"`
	}](), []struct {
		S string `msgpack:",intern"`
	}{{"same"}, {"same"}, {"other"}})
}

// TestMsgpackFieldCount checks that a struct's array must have exactly as many elements as the struct has
// fields.
func TestMsgpackFieldCount(t *testing.T) {
	type two struct{ A, B int }
	for _, c := range []struct {
		b    []byte
		good bool
	}{
		{[]byte{0x92, 1, 2}, true},
		{[]byte{0x91, 1}, false},
		{[]byte{0x93, 1, 2, 3}, false},
		{[]byte{0x81, 0xa1, 'A', 1}, false},
		{[]byte{0x80}, false},
	} {
		_, err := Msgpack[two]().Decode(c.b)
		if (err == nil) != c.good {
			t.Errorf("% x: %v", c.b, err)
		}
		_, err = Msgpack[map[string][]*two]().Decode(join([]byte{0x81, 0xa1, 'k', 0x91}, c.b))
		if (err == nil) != c.good {
			t.Errorf("nested % x: %v", c.b, err)
		}
	}
}

func refused[V any](t *testing.T, name string, b []byte) {
	t.Helper()
	c := Msgpack[V]()
	c.Decode(b) // the first Decode fills caches
	limit := uint64(allocFloor + 2*len(b))
	if n := allocated(func() {
		if _, err := c.Decode(b); !errors.Is(err, ErrValue) {
			t.Errorf("%s into %v: %v", name, reflect.TypeFor[V](), err)
		}
	}); n > limit {
		t.Errorf("%s into %v: %d bytes allocated, the limit is %d", name, reflect.TypeFor[V](), n, limit)
	}
}

func TestMsgpackHostile(t *testing.T) {
	for name, b := range hostile() {
		refused[any](t, name, b)
		refused[product](t, name, b)
		refused[[]product](t, name, b)
		refused[map[string]string](t, name, b)
		refused[string](t, name, b)
		refused[dict](t, name, b)
	}
	nils := func(n int) []byte { return join(array32(uint32(n)), bytes.Repeat([]byte{0xc0}, n)) }
	type large struct{ A [1024]int64 }
	refused[[]large](t, "nils", nils(20_000))
	refused[[][1 << 16]int](t, "nils", nils(1000))
	refused[[]*large](t, "empty arrays", join(array32(20_000), bytes.Repeat([]byte{0x90}, 20_000)))
	refused[map[int]large](t, "nils as values", join([]byte{0xde, 0x20, 0}, bytes.Repeat([]byte{1, 0xc0}, 0x2000)))

	// Where the decoder expects a map, it takes an extension's contents for one.
	for name, b := range map[string][]byte{
		"time as map":       {0xd7, 0xff, 0xdf, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0},
		"long time as map":  {0xc7, 12, 0xff, 0xdf, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0},
		"extension as map":  {0xc7, 5, 1, 0xdf, 0xff, 0xff, 0xff, 0xff},
		"interned as map":   {0xd5, 0x80, 0xde, 0xff},
		"interned, shifted": join([]byte{0x93, 0xd5, 0x80, 0x81, 0xa5, 0xc6, 0, 3, 0, 0}, bytes.Repeat([]byte{0x91}, 3<<16), []byte{0xc0}),
	} {
		refused[map[string]string](t, name, b)
		refused[map[string]any](t, name, b)
		refused[map[int]int](t, name, b)
		refused[dict](t, name, b)
		refused[product](t, name, b)
		refused[struct{ D dict }](t, name, join([]byte{0x91}, b))
		refused[[]dict](t, name, join([]byte{0x91}, b))
	}

	// Read as a map, the interned string swallows the header of the bytes after it. A decoder that fell for
	// it would recurse into them as deep as they are long.
	type three struct {
		D    dict
		B    []byte
		Last any
	}
	refused[three](t, "interned, shifted", join([]byte{0x93, 0xd5, 0x80, 0x81, 0xa5, 0xc6, 0, 3, 0, 0}, bytes.Repeat([]byte{0x91}, 3<<16), []byte{0xc0}))

	// Cases in which the decoder panics.
	refused[map[any]int](t, "slice as key", []byte{0x81, 0x90, 1})
	refused[[]time.Time](t, "nil as time", []byte{0x91, 0xc0})
	refused[[]fmt.Stringer](t, "string as Stringer", []byte{0x91, 0xa1, 'x'})
	refused[raised](t, "marshaller", []byte{0x91, 1})
	refused[rude](t, "greedy", []byte{0x91, 1})
}

func TestMsgpackAppendRefuses(t *testing.T) {
	type list struct{ Next *list }
	long := &list{}
	for range MaxDepth {
		long = &list{long}
	}
	check := func(b []byte, err error) {
		t.Helper()
		if err == nil || string(b) != "x" {
			t.Errorf("%.20q, %v", b, err)
		}
	}
	dst := []byte("x")
	check(Msgpack[*list]().Append(dst, long))
	check(Msgpack[[]int8]().Append(dst, make([]int8, MaxElements+1)))
	check(Msgpack[any]().Append(dst, make(chan int)))
	check(Msgpack[raised]().Append(dst, raised{}))
	check(Msgpack[msgpack.RawMessage]().Append(dst, msgpack.RawMessage{1, 2}))
	if _, err := Msgpack[*list]().Append(nil, long.Next); err != nil {
		t.Error(err)
	}
}

// TestMsgpackAfterErrors checks that the codec keeps working after errors and panics, and that a pooled
// decoder records nothing.
func TestMsgpackAfterErrors(t *testing.T) {
	type mixed struct {
		Rude *rude
		S    string
	}
	c := Msgpack[mixed]()
	good := ok[[]byte](t)(c.Append(nil, mixed{S: strings.Repeat("s", 4000)}))
	for range 50 {
		if _, err := c.Decode([]byte{0x92, 0x90, 0xc0}); err == nil {
			t.Fatal("no error")
		}
		if v, err := c.Decode(good); err != nil || len(v.S) != 4000 {
			t.Fatal(v, err)
		}
	}
	c.Decode(good)
	if n := allocatedOnce(func() {
		for range 1000 {
			c.Decode(good)
		}
	}); n > 1000*12_000 {
		t.Errorf("%d bytes for 1000 values of %d", n, len(good))
	}
}

func TestMsgpackConcurrent(t *testing.T) {
	c, p := Msgpack[product](), sample()
	want := ok[[]byte](t)(c.Append(nil, p))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				b, err := c.Append(nil, p)
				if err != nil || !bytes.Equal(b, want) {
					t.Errorf("%x, %v", b, err)
				}
				if v, err := c.Decode(b); err != nil || !reflect.DeepEqual(v, p) {
					t.Errorf("%+v, %v", v, err)
				}
			}
		})
	}
	wg.Wait()
}
