package codec

import (
	"bytes"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/vmihailenco/msgpack/v5"
)

// The tests in this file check limits at their edges: the last value that is accepted and the first that is not.

// TestObjectHeads checks the head of an object with each first byte, against the table of the format.
func TestObjectHeads(t *testing.T) {
	rest := make([]byte, 300) // a length field of zeros, or contents
	for c := range 256 {
		want := object{code: byte(c), head: 1}
		switch {
		case c <= 0x7f, c >= 0xe0, c == 0xc0, c == 0xc2, c == 0xc3:
		case c <= 0x8f:
			want.form, want.length = formMap, uint32(c-0x80)
		case c <= 0x9f:
			want.form, want.length = formArray, uint32(c-0x90)
		case c <= 0xbf:
			want.length = uint32(c - 0xa0)
		case c == 0xc1:
			if _, err := readObject(append([]byte{0xc1}, rest...), 0); err == nil {
				t.Error("0xc1 is no object")
			}
			continue
		case c >= 0xc4 && c <= 0xc6, c >= 0xd9 && c <= 0xdb:
			want.head += map[int]int{0xc4: 1, 0xc5: 2, 0xc6: 4, 0xd9: 1, 0xda: 2, 0xdb: 4}[c]
		case c >= 0xc7 && c <= 0xc9:
			want.form, want.head = formExt, 2+1<<(c-0xc7)
		case c >= 0xd4 && c <= 0xd8:
			want.form, want.head, want.length = formExt, 2, 1<<(c-0xd4)
		case c == 0xdc, c == 0xdd:
			want.form, want.head = formArray, map[int]int{0xdc: 3, 0xdd: 5}[c]
		case c == 0xde, c == 0xdf:
			want.form, want.head = formMap, map[int]int{0xde: 3, 0xdf: 5}[c]
		default:
			want.length = map[int]uint32{0xca: 4, 0xcb: 8, 0xcc: 1, 0xcd: 2, 0xce: 4, 0xcf: 8, 0xd0: 1, 0xd1: 2, 0xd2: 4, 0xd3: 8}[c]
		}
		b := append([]byte{byte(c)}, rest...)
		got, err := readObject(b, 0)
		if err != nil || got != want {
			t.Errorf("%#x: %+v, %v, want %+v", c, got, err, want)
		}
		whole := want.head
		if want.form <= formExt {
			whole += int(want.length)
		}
		if _, err := readObject(b[:whole], 0); err != nil {
			t.Errorf("%#x in %d bytes: %v", c, whole, err)
		}
		if _, err := readObject(b[:whole-1], 0); err == nil {
			t.Errorf("%#x in %d bytes is accepted", c, whole-1)
		}
	}
}

// TestCheckSaysWhere checks the numbers in the errors of CheckMsgpack.
func TestCheckSaysWhere(t *testing.T) {
	for want, b := range map[string][]byte{
		"2 bytes after the value":                {1, 1, 1},
		"2 elements at 3 where 1 bytes are left": {0x91, 0x91, 0x92, 1},
		"4 elements at 1 where 3 bytes are left": {0x82, 1, 1, 1},
		"3 bytes at 2 where 1 are left":          {0x91, 0xa3, 'x'},
		"1 bytes at 2 where 0 are left":          {0xd4, 0x80},
		"1 elements at 1 where 0 bytes are left": {0x91},
		"cut short after 2 bytes":                {0xda, 0},
		"byte 0xc1 at 2":                         {0x92, 0xc0, 0xc1},
	} {
		if err := CheckMsgpack(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%x: %v, want %q", b, err, want)
		}
	}
	for _, b := range [][]byte{append([]byte{0x8f}, make([]byte, 30)...), append([]byte{0x9f}, make([]byte, 15)...), {0x92, 0x7f, 0x7f}} {
		if err := CheckMsgpack(b); err != nil {
			t.Errorf("%x: %v", b, err)
		}
	}
}

// TestDepthWalk checks how deep a value is and how many parts it has, at the edges, and that the walk sees every part.
func TestDepthWalk(t *testing.T) {
	check := func(v any, steps, hops int) error {
		w := depthWalk{shapes: new(shapes), steps: steps}
		return w.check(reflect.ValueOf(v), hops)
	}
	if err := check(1, maxSteps-1, 0); err != nil {
		t.Error(err)
	}
	if err := check(1, maxSteps, 0); err == nil {
		t.Error("a part too many")
	}
	if err := check(1, 0, maxHops); err != nil {
		t.Error(err)
	}
	if err := check(1, 0, maxHops+1); err == nil {
		t.Error("a level too many")
	}
	type two struct{ A, B *any }
	var inner any = "x"
	one := 1
	for name, v := range map[string]any{
		"pointer":         &one,
		"interface":       &inner,
		"second field":    two{B: &inner},
		"second element":  []any{nil, &inner},
		"array":           [2]*any{nil, &inner},
		"key":             map[any]int{&inner: 1},
		"value":           map[string]any{"x": &inner},
		"string in a map": map[string]string{"x": "y"},
	} {
		levels := map[string]int{"pointer": 1, "interface": 2, "second field": 3, "second element": 4, "array": 3, "key": 4, "value": 4, "string in a map": 1}[name]
		if err := check(v, 0, maxHops-levels); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := check(v, 0, maxHops-levels+1); err == nil || !strings.Contains(err.Error(), "nested deeper") {
			t.Errorf("%s one level deeper: %v", name, err)
		}
	}
	for _, v := range []any{[]string{"x"}, []int{1}, [2]int{}} { // what cannot be deep is not walked
		if err := check(v, maxSteps-1, maxHops); err != nil {
			t.Errorf("%T: %v", v, err)
		}
	}
	if !deep(reflect.TypeFor[struct{ X any }](), map[reflect.Type]bool{}) {
		t.Error("a struct with an interface is not deep")
	}
	if deep(timeType, map[reflect.Type]bool{}) {
		t.Error("a time is deep")
	}
}

// TestCompressedEdges checks the limits of Compressed at their edges, and that what does not become shorter stays as it is.
func TestCompressedEdges(t *testing.T) {
	for _, good := range []Compression{{Threshold: 1}, {MaxDecoded: 1 << 30}, {Threshold: 1000, MaxDecoded: 1000}} {
		if _, err := Compressed(Raw[string](), good); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
	c := ok[Codec[string]](t)(Compressed(Raw[string](), Compression{Threshold: 1, MaxDecoded: 1000}))
	b := ok[[]byte](t)(c.Append(nil, strings.Repeat("x", 1000)))
	if v, err := c.Decode(b); len(v) != 1000 || err != nil || b[0] != s2Value {
		t.Errorf("%d bytes, %v", len(v), err)
	}
	if _, err := c.Append(nil, strings.Repeat("x", 1001)); err == nil {
		t.Error("a byte too many is encoded")
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for n := 4; n < 200; n += 13 {
		random := make([]byte, n)
		for i := range random {
			random[i] = byte(rng.Uint32())
		}
		for again := range n { // the more is repeated, the shorter the encoding
			plain := append(bytes.Clone(random), random[:again]...)
			packed := s2.Encode(nil, plain)
			b := ok[[]byte](t)(c.Append(nil, string(plain)))
			if short := len(packed) < len(plain); (b[0] == s2Value) != short || len(b) != 1+min(len(plain), len(packed)) {
				t.Fatalf("%d bytes, %d when compressed, are encoded as %d with %d in front", len(plain), len(packed), len(b)-1, b[0])
			}
		}
	}
	x := c.(*compressed[string])
	for size, kept := range map[int]int{maxBuffer: maxBuffer, maxBuffer + 1: 0} {
		buf := new([]byte)
		if x.put(buf, make([]byte, 10, size)); len(*buf) != kept {
			t.Errorf("a buffer of %d bytes: %d are kept", size, len(*buf))
		}
	}
}

// TestReadersAtTheEnd checks readers of a body of which nothing, or too little, is left.
func TestReadersAtTheEnd(t *testing.T) {
	d := decoder{}
	if d.signedDuration(); d.err == nil {
		t.Error("a duration in no bytes")
	}
	for left, good := range map[int]bool{5: false, 6: true} {
		d := decoder{b: append([]byte{3}, make([]byte, left)...)}
		if n := d.count("pairs", 10, 2); (n == 3) != good || (d.err == nil) != good {
			t.Errorf("3 elements of 2 bytes in %d: %d, %v", left, n, d.err)
		}
	}
	if k, id, body, err := FrameKind([]byte{7, 0, 0, 0, 0, 0, 0, 0, 9}); k != 7 || id != 9 || len(body) != 0 || err != nil {
		t.Errorf("kind %d, id %d, body %x, %v", k, id, body, err)
	}
}

type namedComplex complex128

// binaryOnly encodes itself by one pair of interfaces only.
type binaryOnly struct{ n byte }

func (b binaryOnly) MarshalBinary() ([]byte, error)     { return []byte{b.n}, nil }
func (b *binaryOnly) UnmarshalBinary(data []byte) error { b.n = data[0]; return nil }

// TestSchemaText checks what descriptions say of types that describe themselves by name or by number.
func TestSchemaText(t *testing.T) {
	for got, want := range map[string]string{
		Schema[struct{ A, B namedComplex }]():  "{A complex128;B complex128;}",
		Schema[struct{ A, B time.Duration }](): "{A int64;B int64;}",
		Schema[any]():                          "interface",
		Schema[error]():                        "interface(error)",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	by := strings.TrimSuffix(strings.TrimPrefix(selfEncoding(reflect.TypeFor[binaryOnly]()), "j"), "j")
	for i, x := range selfEncodeTypes {
		if has := strings.Contains(by, string(rune('a'+i))); has != reflect.PointerTo(reflect.TypeFor[binaryOnly]()).Implements(x) {
			t.Errorf("%q says %v of %v", by, has, x)
		}
	}
}

type (
	onlyEncodes struct{ N int }
	onlyDecodes struct{ N int }
)

func (onlyEncodes) EncodeMsgpack(e *msgpack.Encoder) error  { return e.EncodeNil() }
func (*onlyDecodes) DecodeMsgpack(d *msgpack.Decoder) error { return d.DecodeNil() }

// TestFitEdges checks types that encode themselves by the first pair of interfaces or by half of it.
func TestFitEdges(t *testing.T) {
	c := msgpackConvention()
	for v, want := range map[any]bool{onlyEncodes{}: true, onlyDecodes{}: true, celsius{}: true, binaryOnly{}: true, struct{ N int }{}: false} {
		if got := c.selfEncoding(reflect.TypeOf(v)); got != want {
			t.Errorf("%T encodes itself: %v", v, got)
		}
	}
	if lost := c.lost(reflect.TypeFor[struct{ C celsius }]()); len(lost) != 0 {
		t.Errorf("%v is lost of a type that encodes itself", lost)
	}
}

// TestCheckSoFar checks what the writer's look at its own output accepts.
func TestCheckSoFar(t *testing.T) {
	pairs := join([]byte{0xdc, 0, 255}, bytes.Repeat([]byte{0x91, 1}, 200)) // the lists inside are complete, and the outer one is not
	half := array32(MaxElements / 2)
	map32 := func(n uint32) []byte { return append([]byte{0xdf}, array32(n)[1:]...) }
	for name, c := range map[string]struct {
		b    []byte
		good bool
	}{
		"nothing":              {nil, true},
		"an unfinished head":   {[]byte{0xdd, 0}, true},
		"two values":           {[]byte{0x90, 0x90}, true},
		"many lists":           {pairs, true},
		"many lists, deep":     {join(pairs, bytes.Repeat([]byte{0x91}, MaxDepth+1)), false},
		"deep":                 {bytes.Repeat([]byte{0x91}, MaxDepth), true},
		"too deep":             {bytes.Repeat([]byte{0x91}, MaxDepth+1), false},
		"long":                 {array32(MaxElements), true},
		"too long":             {array32(MaxElements + 1), false},
		"too long in two":      {join([]byte{0x92}, half, half), false},
		"too long with its in": {join(half, half, []byte{0x91}), false},
		"a large map":          {map32(MaxElements / 2), true},
		"too large a map":      {map32(MaxElements/2 + 1), false},
	} {
		if err := checkSoFar(c.b); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPlanCosts checks the costs that a plan adds up.
func TestPlanCosts(t *testing.T) {
	type inner struct{ A, B, C, D, E int64 }
	type Outer struct {
		*Embedded
		N int
	}
	text, blob, number, box := planOf(reflect.TypeFor[string]()), planOf(reflect.TypeFor[[]byte]()), planOf(reflect.TypeFor[int64]()), planOf(reflect.TypeFor[any]())
	for _, c := range []struct {
		p      *plan
		code   byte
		length uint32
		want   int64
	}{
		{nil, 0xc4, 9, 0},
		{box, 0xc0, 0, 0}, {box, 0x7f, 0, 0}, {box, 0xa0, 0, 0}, {box, 0xa1, 1, 112}, {box, 0xcb, 8, 112}, {box, 0xc4, 0, 112}, {box, 0xc7, 1, 112},
		{blob, 0xc4, 0, 64}, {blob, 0xc6, 5, 64}, {blob, 0xa5, 5, 64}, {blob, 0xdb, 5, 64}, {blob, 0xe0, 0, 0},
		{text, 0xa0, 0, 0}, {text, 0xa5, 5, 16}, {text, 0xc4, 5, 64}, {text, 0xc6, 5, 64}, {text, 0xc7, 5, 16}, {text, 0xdb, 5, 16}, {text, 0xff, 0, 0},
		{number, 0xcf, 8, 64},
		{planOf(reflect.TypeFor[[2]int64]()), 0xa5, 5, 64},
	} {
		if got := c.p.plainCost(&object{code: c.code, length: c.length}); got != c.want {
			t.Errorf("%#x with %d bytes costs %d, want %d", c.code, c.length, got, c.want)
		}
	}
	list, dict, record := planOf(reflect.TypeFor[[]int64]()), planOf(reflect.TypeFor[map[string]int64]()), planOf(reflect.TypeFor[Outer]())
	for _, c := range []struct {
		p    *plan
		f    form
		n    int64
		want int64
	}{
		{nil, formMap, 9, 0},
		{box, formMap, 0, 48}, {box, formMap, 8, 394}, {box, formMap, 9, 1974},
		{box, formArray, 10, 24 + 8 + 424},
		{list, formArray, 10, 160 + 54}, {list, formArray, 10_000, 160_000 + 50_004}, {list, formArray, 10_001, 640_064},
		{dict, formMap, 2, 314 + 2*(28+18)}, {dict, formArray, 2, 0},
		{record, formArray, 6, 58}, {planOf(reflect.TypeFor[inner]()), formArray, 5, 0},
		{text, formArray, 2, 0},
	} {
		if got := c.p.containerCost(c.f, c.n); got != c.want {
			t.Errorf("%+v: %d elements cost %d, want %d", c.p, c.n, got, c.want)
		}
	}
	for _, c := range []struct{ key, elem, n, want int64 }{{129, 8, 1, 403}, {128, 8, 1, 1434}, {129, 8, 9, 2631}, {8, 129, 9, 2631}} {
		if got := mapCost(c.key, c.elem, c.n); got != c.want {
			t.Errorf("a map %+v costs %d", c, got)
		}
	}
	if dict.child(4) != dict.key || dict.child(3) != dict.elem || record.child(6) != record.fields[0] || record.child(1) != record.fields[5] {
		t.Error("a container's elements have each other's plans")
	}
}

// Embedded is exported so that a pointer to it can be embedded.
type Embedded struct{ A, B, C, D, E int64 }

// TestWireFields checks which fields are encoded, and in which order, when structs are embedded.
func TestWireFields(t *testing.T) {
	type Twice struct{ A int64 }
	type Loop struct {
		*Loop
		X int64
	}
	type small struct{ P, Q int64 }
	names := func(t reflect.Type) (list []string) {
		for _, f := range wireFields(t, 0) {
			list = append(list, f.name)
		}
		return list
	}
	for _, c := range []struct {
		t    reflect.Type
		want string
	}{
		{reflect.TypeFor[struct {
			Embedded
			N int64
		}](), "A B C D E N"},
		{reflect.TypeFor[struct {
			A int64
			Embedded
		}](), "A Embedded"}, // it would hide A
		{reflect.TypeFor[struct {
			A        int64
			Embedded `msgpack:",inline"`
		}](), "A B C D E"},
		{reflect.TypeFor[struct {
			Embedded `msgpack:",noinline"`
			N        int64
		}](), "Embedded N"},
		{reflect.TypeFor[struct {
			N int64 `msgpack:"n,alias:A"`
			Twice
		}](), "n Twice"},
		{reflect.TypeFor[struct {
			small
			N int64 `msgpack:"-"`
		}](), "P Q"},
		{reflect.TypeFor[struct {
			time.Time
			celsius
		}](), "Time celsius"},
	} {
		if got := strings.Join(names(c.t), " "); got != c.want {
			t.Errorf("%v: %s, want %s", c.t, got, c.want)
		}
	}
	if n := len(wireFields(reflect.TypeFor[Loop](), 0)); n == 0 || n > MaxDepth+2 {
		t.Errorf("a struct that embeds itself has %d fields", n)
	}
	inner := wireFields(reflect.TypeFor[struct {
		*Embedded
		N int64
	}](), 0)
	if inner[0].behind != rounded(40) || inner[1].behind != 0 {
		t.Errorf("behind the pointer are %d bytes, and %d", inner[0].behind, inner[1].behind)
	}
}

// TestSourceAtTheEnd checks what the decoder's input says when nothing is left.
func TestSourceAtTheEnd(t *testing.T) {
	s := source{b: []byte{1}}
	if c, err := s.ReadByte(); c != 1 || err != nil {
		t.Errorf("%d, %v", c, err)
	}
	if _, err := s.ReadByte(); err != io.EOF {
		t.Error(err)
	}
	if _, err := s.Read(make([]byte, 1)); err != io.EOF {
		t.Error(err)
	}
	if n, err := s.Read(nil); n != 0 || err != nil {
		t.Errorf("%d bytes of none, %v", n, err)
	}
	for size, good := range map[int]bool{24: false, 25: true} {
		d := decoder{b: make([]byte, size)}
		if d.trace(); (d.err == nil) != good {
			t.Errorf("a trace in %d bytes: %v", size, d.err)
		}
	}
}

// TestWeighs checks the sizes that the weigher adds up.
func TestWeighs(t *testing.T) {
	for n, want := range map[int64]int64{-1: 0, 0: 0, 1: 8, 8: 8, 9: 16, 16: 16, 17: 32, 128: 128, 129: 144, 256: 256, 257: 288, 32768: 32768, 32769: 40960} {
		if got := heapOf(n); got != want {
			t.Errorf("%d bytes take %d, want %d", n, got, want)
		}
	}
	for _, c := range []struct{ key, elem, n, want int64 }{
		{8, 8, 0, 48}, {8, 8, 8, 192}, {8, 8, 9, 384}, {8, 1, 8, 192}, {129, 1, 2, 480}, {1, 129, 2, 480}, {128, 1, 1, 1200}, {129, 8, 9, 96 + 288 + 9*144},
	} {
		if got := mapHeap(c.key, c.elem, c.n); got != c.want {
			t.Errorf("a map %+v takes %d", c, got)
		}
	}
	list := append(make([]string, 0, 4), "123456789", "")
	one, text := 1, "x"
	for _, c := range []struct {
		v    any
		want int64
	}{
		{list, 64 + 16}, {[2]string{"x", "123456789"}, 8 + 16}, {&one, 8}, {(*int)(nil), 0}, {&text, 16 + 8},
		{map[string]int(nil), 0}, {map[int]int{1: 1}, 192}, {map[int]string{1: "123456789"}, 48 + heapOf(8*25) + 16}, {map[string]int{"123456789": 1}, 48 + heapOf(8*25) + 16},
		{[]string(nil), 0}, {[]any{1, nil, &one, "x"}, 64 + 8 + 8 + 16 + 8}, {struct {
			A int
			B string
		}{1, "x"}, 8}, {1, 0},
	} {
		w := weighing{shapes: new(shapes)}
		if got := w.behind(reflect.ValueOf(c.v), 0); got != c.want {
			t.Errorf("%T refers to %d bytes, want %d", c.v, got, c.want)
		}
	}
	for _, c := range []struct {
		steps, hops int
		want        int64
	}{{maxSteps - 1, maxHops, 8}, {maxSteps, 0, 0}, {0, maxHops + 1, 0}} {
		w := weighing{shapes: new(shapes), steps: c.steps}
		if got := w.behind(reflect.ValueOf("x"), c.hops); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
	w := weighing{shapes: new(shapes)} // a level more for each part
	for _, v := range []any{&text, []string{"x"}, map[string]string{"x": "x"}, struct{ A string }{"x"}, []any{"x"}} {
		if got := w.behind(reflect.ValueOf(v), maxHops); got >= (&weighing{shapes: new(shapes)}).behind(reflect.ValueOf(v), maxHops-2) {
			t.Errorf("%T at the last level refers to %d bytes", v, got)
		}
	}
	if got := Weigher[[]int16]()(make([]int16, 1, 10)); got != 32 {
		t.Errorf("a slice of ten takes %d", got)
	}
}
