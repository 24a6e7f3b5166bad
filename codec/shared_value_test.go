package codec

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

// ormParent and ormKid form an object as an ORM returns it: parents point to their children, and children to
// their parents.
type ormParent struct{ Kids []*ormKid }

type ormKid struct {
	Parent *ormParent
	More   []any
}

type ormNode struct{ Next, Twin *ormNode }

// TestValueThatContainsItselfIsRefused checks that a value that contains itself is rejected before its
// encoding overflows the stack or exhausts the memory. The error names its type.
func TestValueThatContainsItselfIsRefused(t *testing.T) {
	family := &ormParent{Kids: make([]*ormKid, 2)}
	family.Kids[0], family.Kids[1] = &ormKid{Parent: family}, &ormKid{Parent: family}
	ring := &ormNode{}
	ring.Next, ring.Twin = ring, ring
	wide := &ormNode{} // 2 to the 40th nodes, none of which contains itself
	for range 40 {
		wide = &ormNode{wide, wide}
	}
	var pointer any
	pointer = &pointer
	list := []any{nil}
	list[0] = list
	tree := map[string]any{}
	tree["self"] = tree
	inside := &ormKid{More: []any{1}}
	inside.More[0] = inside
	for name, err := range map[string]error{
		"*codec.ormParent": encoded(family), "*codec.ormNode": errors.Join(encoded(ring), encoded(wide)), "interface": encoded(pointer),
		"[]interface {}": encoded(list), "map[string]interface {}": encoded(tree), "*codec.ormKid": encoded(inside),
	} {
		if !errors.Is(err, ErrValue) || name != "interface" && !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if j, ok := err.(interface{ Unwrap() []error }); ok && len(j.Unwrap()) != 2 {
			t.Errorf("%s: only %v", name, err)
		}
	}
	if _, err := JSON[*ormParent]().Append(nil, family); err == nil {
		t.Error("JSON encodes it")
	}
	deep := &ormNode{}
	for range MaxDepth - 2 {
		deep = &ormNode{Next: deep}
	}
	if err := encoded(deep); err != nil {
		t.Errorf("a value of %d levels: %v", MaxDepth-1, err)
	}
}

func encoded[V any](v V) error {
	_, err := Msgpack[V]().Append(nil, v)
	return err
}

// TestWriterLooksAtWhatIsWritten checks that the writer checks its output during the encoding, so that types
// that encode themselves are bounded as well.
func TestWriterLooksAtWhatIsWritten(t *testing.T) {
	a := appender{b: []byte("before"), from: 6, look: 6 + firstLook}
	wrote := 0
	for ; wrote < 8*firstLook; wrote++ {
		if err := a.WriteByte(0x91); err != nil { // a list of one, in a list of one
			break
		}
	}
	if wrote >= firstLook {
		t.Errorf("nothing was said of %d levels", wrote)
	}
	a = appender{look: firstLook}
	for range 20 * firstLook {
		if _, err := a.Write([]byte("\x81\xa1kx")[:1+3*min(len(a.b), 1)]); err != nil {
			break
		}
	}
	for _, good := range [][]byte{{}, {0x93, 1, 2}, {0xdc, 0x10, 0x00, 1}, {0xda, 0x10, 0x00, 'x'}, {1}} {
		if err := checkSoFar(good); err != nil {
			t.Errorf("% x: %v", good, err)
		}
	}
	wantErr(t, checkSoFar([]byte(strings.Repeat("\x91", MaxDepth+1))), ErrValue)
	wantErr(t, checkSoFar([]byte{0xdd, 0xff, 0xff, 0xff, 0xff}), ErrValue)
}

// textOnly encodes itself as text and cannot be decoded from it.
type textOnly struct{ N int }

func (textOnly) MarshalText() ([]byte, error) { return []byte("x"), nil }

type unpaired struct{ N int }

func (unpaired) MarshalBinary() ([]byte, error) { return nil, nil }
func (*unpaired) UnmarshalText([]byte) error    { return nil }

type hiddenEmb struct{ A int }

// TestCheckRefusesWhatCannotBeDecoded checks that a type that encodes but cannot be decoded is rejected
// before any value exists, with a message that names the part.
func TestCheckRefusesWhatCannotBeDecoded(t *testing.T) {
	for want, c := range map[string]Checker{
		"error: a error cannot be decoded":       Msgpack[error]().(Checker),
		".E: a error cannot be decoded":          Msgpack[struct{ E error }]().(Checker),
		".S: a fmt.Stringer cannot":              JSON[[]struct{ S fmt.Stringer }]().(Checker),
		".M[][]: a fmt.Stringer cannot":          Msgpack[struct{ M map[string][]fmt.Stringer }]().(Checker),
		"[key]: a encoding.TextMarshaler cannot": Msgpack[map[encoding.TextMarshaler]int]().(Checker),
		"uintptr: a uintptr cannot":              Msgpack[uintptr]().(Checker),
		".hiddenEmb: an embedded pointer to an unexported": Msgpack[struct {
			*hiddenEmb
			B int
		}]().(Checker),
		"a codec.textOnly encodes itself": Msgpack[[]textOnly]().(Checker),
		".M: a codec.unpaired encodes":    Msgpack[struct{ M *unpaired }]().(Checker),
	} {
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	for _, c := range []Checker{
		Msgpack[any]().(Checker), Msgpack[struct {
			hiddenEmb
			T time.Time
			A any
		}]().(Checker), JSON[uintptr]().(Checker), Msgpack[struct {
			E error `msgpack:"-"`
			B int
		}]().(Checker),
	} {
		if err := c.Check(); err != nil {
			t.Error(err)
		}
	}
}

// TestLostNamesWhatIsNotEncoded checks that Lost names the fields that later callers would find empty.
func TestLostNamesWhatIsNotEncoded(t *testing.T) {
	type inner struct{ A, b int }
	type outer struct {
		In   []inner
		M    map[string]*inner
		Out  int `msgpack:"-"`
		when time.Time
		T    time.Time
		_    int
	}
	got := Msgpack[outer]().(Loser).Lost()
	want := []string{"codec.outer.In[].b", "codec.outer.Out", "codec.outer.when"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	packed := ok[Codec[outer]](t)(Compressed(JSON[outer](), Compression{}))
	if got := packed.(Loser).Lost(); !reflect.DeepEqual(got, []string{"codec.outer.In[].b", "codec.outer.when"}) {
		t.Errorf("JSON: %q", got)
	}
	_ = inner{b: 1}
	_ = outer{when: time.Time{}}
}

type rich struct {
	B     []byte
	L     []string
	In    []rich
	P     *rich
	M     map[string][]int
	A     any
	When  time.Time
	Times map[time.Time]time.Time
	Any   map[string]any
}

func richValue() rich {
	now := time.Date(2030, 1, 2, 3, 4, 5, 6000, time.FixedZone("x", 3600))
	r := rich{
		B: []byte("bytes"), L: []string{"a", "b", "c"}, M: map[string][]int{"k": {1, 2, 3}}, A: []any{"x", []any{now, []byte("y")}, map[string]any{"t": now}},
		When: now, Times: map[time.Time]time.Time{now: now}, Any: map[string]any{"when": now, "list": []any{"p", now}},
	}
	own := r
	r.In, r.P = []rich{own, own, own}, &own
	return r
}

// TestDecodedValuesCanBeShared checks that callers can share a decoded value: a slice has no spare capacity
// that two of them could append to, and a time is in UTC and the same for all.
func TestDecodedValuesCanBeShared(t *testing.T) {
	got := ok[rich](t)(thereAndBack(Msgpack[rich](), richValue()))
	lists, times := 0, 0
	var look func(v reflect.Value, path string)
	look = func(v reflect.Value, path string) {
		switch v.Kind() {
		case reflect.Slice:
			if lists++; v.Cap() != v.Len() {
				t.Errorf("%s: capacity %d of %d", path, v.Cap(), v.Len())
			}
			for i := range v.Len() {
				look(v.Index(i), path+"[]")
			}
		case reflect.Pointer, reflect.Interface:
			if !v.IsNil() {
				look(v.Elem(), path)
			}
		case reflect.Map:
			for it := v.MapRange(); it.Next(); {
				look(it.Key(), path+"[key]")
				look(it.Value(), path+"[]")
			}
		case reflect.Struct:
			if at, ok := v.Interface().(time.Time); ok {
				if times++; at.Location() != time.UTC {
					t.Errorf("%s: %v", path, at)
				}
				return
			}
			for i := range v.NumField() {
				look(v.Field(i), path+"."+v.Type().Field(i).Name)
			}
		}
	}
	look(reflect.ValueOf(got), "rich")
	if lists < 30 || times < 30 {
		t.Errorf("%d lists and %d times were seen", lists, times)
	}
	if zero := ok[time.Time](t)(thereAndBack(Msgpack[time.Time](), time.Time{})); zero != (time.Time{}) {
		t.Errorf("the zero time comes back as %v", zero)
	}
	if b := ok[[]byte](t)(thereAndBack(Raw[[]byte](), []byte("12345"))); cap(b) != len(b) {
		t.Errorf("raw: capacity %d of %d", cap(b), len(b))
	}
	if b := ok[[]byte](t)(thereAndBack(Msgpack[[]byte](), []byte("12345"))); cap(b) != len(b) {
		t.Errorf("capacity %d of %d", cap(b), len(b))
	}
	if b := ok[[]int](t)(thereAndBack(JSON[[]int](), []int{1, 2, 3})); cap(b) != len(b) {
		t.Errorf("JSON: capacity %d of %d", cap(b), len(b))
	}
}

func thereAndBack[V any](c Codec[V], v V) (V, error) {
	b, err := c.Append(nil, v)
	if err != nil {
		return v, err
	}
	return c.Decode(b)
}

// weighed compares the memory that values take with the weigher's estimate. The heap belongs to the whole
// process, so other allocations during a measurement count as well. A measurement that is off is therefore
// repeated; a wrong weigher is off every time.
func weighed[V any](t *testing.T, name string, c Codec[V], make1 func(i int) V) {
	t.Helper()
	const n, tries = 150, 5
	var bytes [][]byte
	for i := range n {
		bytes = append(bytes, ok[[]byte](t)(c.Append(nil, make1(i))))
	}
	_ = ok[V](t)(c.Decode(bytes[0])) // allocates what is allocated only once
	for try := 1; ; try++ {
		took, said := takenAndSaid(t, c, bytes)
		ratio := float64(took) / float64(said)
		if ratio >= 0.4 && ratio <= 1.2 {
			return
		}
		if try == tries {
			t.Errorf("%s: %d bytes a value are said, %d are taken: %.2f, and as far off %d times before", name, said/n, took/n, ratio, tries-1)
			return
		}
	}
}

// takenAndSaid decodes values. It returns how many bytes of heap they take, and how many the weigher
// estimates.
func takenAndSaid[V any](t *testing.T, c Codec[V], bytes [][]byte) (took, said int64) {
	t.Helper()
	weigh := Weigher[V]()
	values := make([]V, len(bytes))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.GC() // also frees what pools held
	runtime.ReadMemStats(&before)
	for i := range bytes {
		values[i] = ok[V](t)(c.Decode(bytes[i]))
	}
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	for i := range values {
		said += weigh(values[i])
	}
	runtime.KeepAlive(values)
	runtime.KeepAlive(bytes)
	return int64(after.HeapAlloc) - int64(before.HeapAlloc), said
}

// TestWeigherSaysWhatValuesTake checks that the near tier charges about what decoded values take.
func TestWeigherSaysWhatValuesTake(t *testing.T) {
	weighed(t, "a string", Raw[string](), func(i int) string { return strings.Repeat("x", 100+i) })
	weighed(t, "bytes", Msgpack[[]byte](), func(i int) []byte { return []byte(strings.Repeat("x", 1000+i)) })
	weighed(t, "a list", Msgpack[[]string](), func(i int) []string { return []string{"a", "b", strings.Repeat("c", 50), fmt.Sprint(i)} })
	weighed(t, "small maps", Msgpack[[]map[string]int](), func(i int) []map[string]int {
		var l []map[string]int
		for j := range 20 {
			l = append(l, map[string]int{fmt.Sprint(i, j): j})
		}
		return l
	})
	for _, size := range []int{5, 9, 40, 500, 2000} {
		weighed(t, fmt.Sprint("a map of ", size), Msgpack[map[string]int64](), func(i int) map[string]int64 {
			m := map[string]int64{}
			for j := range size {
				m[fmt.Sprint("key", i, j)] = int64(j)
			}
			return m
		})
	}
	// The race detector rounds allocations below 16 bytes up to 16.
	weighed(t, "pointers", Msgpack[[]*[2]int64](), func(i int) []*[2]int64 {
		var l []*[2]int64
		for j := range 100 {
			l = append(l, &[2]int64{int64(i), int64(j)})
		}
		return l
	})
	weighed(t, "any", Msgpack[any](), func(i int) any {
		m := map[string]any{}
		for j := range 30 {
			m[fmt.Sprint("key", j)] = []any{i * 1000, "text", 1.5, []byte("bytes"), map[string]any{"x": j * 1000}}
		}
		return m
	})
	weighed(t, "a struct", Msgpack[rich](), func(int) rich { return richValue() })
	if n := Weigher[[4]time.Time]()([4]time.Time{}); n != 0 {
		t.Errorf("times weigh %d", n)
	}
	loop := &ormNode{}
	loop.Next = loop
	if n := Weigher[*ormNode]()(loop); n <= 0 { // the walk of a loop must end
		t.Error(n)
	}
}
