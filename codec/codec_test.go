package codec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
)

func TestRaw(t *testing.T) {
	type name string
	roundTrip(t, Raw[[]byte](), []byte("bytes"))
	roundTrip(t, Raw[json.RawMessage](), json.RawMessage(`{}`))
	roundTrip(t, Raw[string](), "")
	roundTrip(t, Raw[name](), "text")
	if b, err := Raw[[]byte]().Decode(nil); len(b) != 0 || err != nil {
		t.Error(b, err)
	}
	c, src := Raw[string](), make([]byte, 100)
	if n := testing.AllocsPerRun(10, func() { c.Decode(src) }); n > 1 {
		t.Errorf("%v allocations to decode a string", n)
	}
}

func schemas(t *testing.T, list ...string) {
	t.Helper()
	for i, a := range list {
		for _, b := range list[:i] {
			if a == b {
				t.Errorf("two types have the schema %s", a)
			}
		}
	}
}

type tree struct {
	Left, Right *tree
	Values      map[string][]tree
}

type chain []chain

func TestSchemaTellsApart(t *testing.T) {
	type ab struct{ A, B int }
	type custom struct{ celsius }
	schemas(t,
		Schema[ab](),
		Schema[struct{ B, A int }](),
		Schema[struct{ A int }](),
		Schema[struct{ A, B, C int }](),
		Schema[struct{ A, B int64 }](),
		Schema[struct{ A, C int }](),
		Schema[struct {
			A int `msgpack:"B"`
			B int `msgpack:"A"`
		}](),
		Schema[struct {
			A int `json:"x"`
			B int
		}](),
		Schema[struct {
			A int `msgpack:"-"`
			B int
		}](),
		Schema[[]ab](), Schema[*ab](), Schema[map[string]ab](), Schema[map[int]ab](), Schema[[2]ab](), Schema[[3]ab](),
		Schema[struct{ X ab }](), Schema[struct{ X *ab }](), Schema[pair[ab, int]](), Schema[pair[int, ab]](),
		Schema[any](), Schema[error](), Schema[fmt.Stringer](), Schema[string](), Schema[[]byte](), Schema[int](),
		Schema[int64](), Schema[celsius](), Schema[dict](), Schema[time.Time](), Schema[struct{ T time.Time }](),
		Schema[time.Duration]()+"not int64", Schema[tree](), Schema[chain](), Schema[custom](), Schema[struct{}](),
	)
}

func TestSchemaIsStable(t *testing.T) {
	type one struct {
		A int
		//lint:ignore U1000 a field that is not exported is what the test is about
		b string
	}
	type other struct { // differs from the type above in its name and in unexported fields only, which do not matter
		A int
		//lint:ignore U1000 as above
		c []byte
	}
	if a, b := Schema[one](), Schema[other](); a != b {
		t.Errorf("%s and %s differ", a, b)
	}
	// These hashes are in the fingerprints that nodes compare: changing one makes a rollout miss.
	for _, c := range []struct{ got, want string }{
		{Schema[one](), "{A int;}"},
		{Schema[tree](), "{Left *^0;Right *^0;Values map[string][]^0;}"},
		{Schema[chain](), "[]^0"},
		{Schema[struct {
			A map[string][]int `msgpack:"a" json:"b"`
		}](), `{A msgpack:"a" json:"b" map[string][]int;}`},
		{fmt.Sprintf("%#x", SchemaHash[one]()), "0xbda7144d8da3c4f3"},
	} {
		if c.got != c.want {
			t.Errorf("got %s, want %s", c.got, c.want)
		}
	}
	first := SchemaHash[product]()
	for range 20 {
		if again := SchemaHash[product](); again != first {
			t.Fatal("a schema changes")
		}
	}
}

type d0 struct{ A, B d1 }
type d1 struct{ A, B d2 }
type d2 struct{ A, B d3 }
type d3 struct{ A, B d4 }
type d4 struct{ A, B d5 }
type d5 struct{ A, B string }

// TestSchemaIsShort checks that a type used many times is described once.
func TestSchemaIsShort(t *testing.T) {
	if s := Schema[d0](); len(s) > 300 {
		t.Errorf("%d bytes: %s", len(s), s)
	}
}

type pointed struct{ n int }

func (p *pointed) MarshalJSON() ([]byte, error) { return json.Marshal(p.n) }
func (p *pointed) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, &p.n) }

func TestJSON(t *testing.T) {
	p := sample()
	p.When, p.Any = p.When.UTC(), map[string]any{"a": 1.5}
	p.Skipped = ""
	roundTrip(t, JSON[struct{ A map[string][]int }](), struct{ A map[string][]int }{map[string][]int{"x": {1}}})
	roundTrip(t, JSON[*inner](), nil)
	roundTrip(t, JSON[pointed](), pointed{7})
	roundTrip(t, JSON[any](), nil)
	roundTrip(t, JSON[json.RawMessage](), json.RawMessage(`{"a":1}`))
	for _, bad := range []string{
		"", "{", "1 2", `{"A":1}}`, "nul", `{"A":"text"}`, strings.Repeat("[", 2_000_000), `{"X":` + strings.Repeat("[", 2_000_000),
	} {
		v, err := JSON[struct{ A, B int }]().Decode([]byte(bad))
		wantErr(t, err, ErrValue)
		if v.A != 0 || v.B != 0 {
			t.Errorf("%.20q: the value is %v beside the error", bad, v)
		}
	}
	if b, err := JSON[chan int]().Append([]byte("x"), nil); err == nil || string(b) != "x" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestCompressed(t *testing.T) {
	c := ok[Codec[string]](t)(Compressed(Raw[string](), Compression{Threshold: 100, MaxDecoded: 1 << 20}))
	if c.Name() != "s2(raw)" {
		t.Error(c.Name())
	}
	long := strings.Repeat("0123456789", 10_000)
	noise := make([]byte, 4000)
	rnd := rand.NewChaCha8([32]byte{1})
	rnd.Read(noise)
	for _, x := range []struct {
		v    string
		flag byte
		most int
	}{
		{"", 0, 1}, {long[:99], 0, 100}, {long[:100], 1, 60}, {long, 1, 6000}, {string(noise), 0, 4001}, {long[:1000], 1, 200},
	} {
		roundTrip(t, c, x.v)
		b := ok[[]byte](t)(c.Append(nil, x.v))
		if b[0] != x.flag || len(b) > x.most {
			t.Errorf("%.20q: flag %d, %d bytes", x.v, b[0], len(b))
		}
	}
	if b, err := c.Append([]byte("x"), strings.Repeat("0", 1<<20+1)); err == nil || string(b) != "x" {
		t.Errorf("more than MaxDecoded: %d bytes, %v", len(b), err)
	}
	m := ok[Codec[product]](t)(Compressed(Msgpack[product](), Compression{}))
	roundTrip(t, m, sample())
	b := ok[[]byte](t)(c.Append(nil, long))
	for i := range b {
		if v, err := c.Decode(b[:i]); err == nil {
			t.Errorf("the first %d bytes of %d decode to %d", i, len(b), len(v))
		}
	}
}

func TestCompressedHostile(t *testing.T) {
	c := ok[Codec[string]](t)(Compressed(Raw[string](), Compression{MaxDecoded: 1 << 20}))
	bomb := append([]byte{1}, s2.Encode(nil, make([]byte, 1<<20+1))...)
	for name, b := range map[string][]byte{
		"nothing": {}, "unknown": {2, 0}, "no length": {1}, "2^32-1 long": {1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0},
		"2^63 long": {1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1}, "over the limit": bomb,
		"nothing after the length": {1, 0x80, 0x80, 0x40}, "copy from before": {1, 4, 0xfe, 0xff, 0xff},
	} {
		_, err := c.Decode(b)
		wantErr(t, err, ErrValue)
		if n := allocated(func() { c.Decode(b) }); n > 1<<20+64<<10 {
			t.Errorf("%s: %d bytes allocated", name, n)
		}
	}
	if n := allocated(func() { c.Decode(bomb) }); n > 64<<10 {
		t.Errorf("%d bytes allocated for what is over the limit", n)
	}
	inner := ok[Codec[any]](t)(Compressed(Msgpack[any](), Compression{}))
	deep := append([]byte{1}, s2.Encode(nil, bytes.Repeat([]byte{0x91}, 2_000_000))...)
	_, err := inner.Decode(deep)
	wantErr(t, err, ErrValue)
}

func TestCompressedConfig(t *testing.T) {
	for _, c := range []struct {
		cfg   Compression
		field string
	}{
		{Compression{Threshold: -1}, "Threshold"}, {Compression{MaxDecoded: -1}, "MaxDecoded"},
		{Compression{MaxDecoded: 1<<30 + 1}, "MaxDecoded"}, {Compression{Threshold: 1000, MaxDecoded: 999}, "MaxDecoded"},
	} {
		if _, err := Compressed(Raw[string](), c.cfg); err == nil || !strings.Contains(err.Error(), c.field) {
			t.Errorf("%+v: %v", c.cfg, err)
		}
	}
	if _, err := Compressed[string](nil, Compression{}); err == nil {
		t.Error("no error for no codec")
	}
}
