package codec

import (
	"encoding"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

// A plan is the cost of decoding into one type, so that the check can add up what decoding a value would
// allocate before the value is decoded. The sums are upper bounds on everything that msgpack/v5 v5.3.6
// allocates, including what it discards while it grows. A plan is immutable once built. Every method accepts
// nil, the plan of an unknown type.
type plan struct {
	kind   planKind
	size   int64   // bytes that one such value takes in a slice or a struct
	extra  int64   // of a struct: the sizes of the structs behind its embedded pointers
	key    *plan   // of a map
	elem   *plan   // of a pointer, slice, array or map
	fields []*plan // of a struct, in the order of encoding
	custom bool    // with planAny: it decodes itself
	any    *plan   // the plan of interfaces, for parts whose plan is unknown
}

type planKind uint8

const (
	planAny     planKind = iota // an interface, or a type that decodes itself
	planLeaf                    // numbers, strings, bytes, times
	planPointer                 // its target is allocated unless it is nil
	planSlice
	planArray
	planMap
	planStruct
)

const (
	wordSize  = 8 // a 32-bit pointer is shorter: the bound holds
	anySize   = 2 * wordSize
	sliceSize = 3 * wordSize
	// growOver is the length above which msgpack/v5 grows slices step by step.
	growOver = 10_000
	// mapBase is the size of an empty map. mapGroup is the number of slots in a map's first group.
	mapBase, mapGroup = 48, 8
	// mapInline is the size above which a map keeps keys and elements behind pointers.
	mapInline = 128
	// leastBytes is the capacity of the shortest []byte that msgpack/v5 allocates.
	leastBytes = 64
)

// rounded bounds the bytes that the allocator uses for n: size classes waste up to a quarter.
func rounded(n int64) int64 { return n + n/4 + wordSize }

// within returns the plan for a container whose header says form and n elements: p, or the plan of interfaces
// if the decoder would not decode the container as p.
func (p *plan) within(f form, n int) *plan {
	switch {
	case p == nil || p.kind == planAny:
		return p
	case f == formMap && p.kind == planMap:
		return p
	case f == formArray && (p.kind == planSlice || p.kind == planArray || p.kind == planStruct && n == len(p.fields)):
		return p
	}
	return p.any
}

// child returns the plan of a container's next element when left elements remain.
func (p *plan) child(left uint32) *plan {
	if p == nil {
		return nil
	}
	switch p.kind {
	case planSlice, planArray:
		return p.elem
	case planStruct:
		return p.fields[len(p.fields)-int(left)]
	case planMap:
		if left%2 == 0 {
			return p.key
		}
		return p.elem
	}
	return p
}

// plainCost returns what decoding an object other than a container allocates besides the copy of its
// contents.
func (p *plan) plainCost(o *object) int64 {
	if p == nil || o.length == 0 && o.code < 0xc4 { // nil, bool, a small number, ""
		return 0
	}
	cost := int64(0)
	if p.kind == planAny {
		cost = 2 * sliceSize // the interface's boxed value
	}
	switch {
	case o.code >= 0xc4 && o.code <= 0xc6 || p.kind == planAny:
		cost += leastBytes
	case o.code <= 0xdb: // a string; into a []byte or a type that decodes itself it costs as bytes
		cost += leastBytes
		if p.kind == planLeaf && p.size == anySize { // a string rounds up to 16 bytes at most
			cost = 2 * wordSize
		}
	}
	return cost
}

// containerCost returns what decoding a container of n elements or entries allocates besides the allocations
// of the elements themselves.
func (p *plan) containerCost(f form, n int64) int64 {
	if p == nil {
		return 0
	}
	switch {
	case p.kind == planAny && f == formMap:
		return mapCost(anySize, anySize, n)
	case p.kind == planAny:
		return sliceSize + wordSize + sliceCost(anySize, n)
	case p.kind == planSlice:
		return sliceCost(p.elem.size, n)
	case p.kind == planMap && f == formMap:
		// Each key and each element is first decoded into a variable of its own.
		return mapCost(p.key.size, p.elem.size, n) + n*(rounded(p.key.size)+rounded(p.elem.size))
	case p.kind == planStruct:
		return p.extra
	}
	return 0
}

func sliceCost(size, n int64) int64 {
	if n <= growOver {
		return 2*n*size + rounded(n*size)/2 // a slice of zeros, appended to the empty one
	}
	return 8 * n * size // growing by a quarter each time adds up to five times, plus the zeros
}

func mapCost(key, elem, n int64) int64 {
	if n == 0 {
		return mapBase
	}
	slot, behind := int64(0), int64(0)
	for _, s := range []int64{key, elem} {
		if s > mapInline {
			slot, behind = slot+wordSize, behind+rounded(s)
			continue
		}
		slot += s
	}
	if n <= mapGroup {
		return mapBase + wordSize + rounded(mapGroup*(slot+1)) + n*behind
	}
	// Tables double in size, are at most 7/8 full, and each leaves its predecessors as garbage.
	return 4*mapBase + 6*n*(slot+1) + n*behind
}

// planOf builds the plan of t.
func planOf(t reflect.Type) *plan {
	b := planBuilder{of: map[reflect.Type]*plan{}, any: &plan{kind: planAny, size: anySize}}
	b.any.any = b.any
	return b.build(t)
}

type planBuilder struct {
	of  map[reflect.Type]*plan
	any *plan
}

func (b *planBuilder) build(t reflect.Type) *plan {
	if p, ok := b.of[t]; ok {
		return p
	}
	p := &plan{kind: planLeaf, size: int64(t.Size()), any: b.any}
	b.of[t] = p // before its parts, because types may be recursive
	switch {
	case t == timeType:
	case t.Kind() == reflect.Pointer:
		p.kind, p.elem = planPointer, b.build(t.Elem())
	case encodesItself(t):
		p.kind, p.custom = planAny, true
	case t.Kind() == reflect.Interface:
		p.kind = planAny
	case t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8:
		p.kind, p.elem = planSlice, b.build(t.Elem())
	case t.Kind() == reflect.Array && t.Elem().Kind() != reflect.Uint8:
		p.kind, p.elem = planArray, b.build(t.Elem())
	case t.Kind() == reflect.Map:
		p.kind, p.key, p.elem = planMap, b.build(t.Key()), b.build(t.Elem())
	case t.Kind() == reflect.Struct:
		p.kind = planStruct
		for _, f := range wireFields(t, 0) {
			p.fields = append(p.fields, b.build(f.typ))
			p.extra += f.behind
		}
	}
	return p
}

var (
	timeType        = reflect.TypeFor[time.Time]()
	selfEncodeTypes = [...]reflect.Type{
		reflect.TypeFor[msgpack.CustomEncoder](), reflect.TypeFor[msgpack.CustomDecoder](),
		reflect.TypeFor[msgpack.Marshaler](), reflect.TypeFor[msgpack.Unmarshaler](),
		reflect.TypeFor[encoding.BinaryMarshaler](), reflect.TypeFor[encoding.BinaryUnmarshaler](),
		reflect.TypeFor[encoding.TextMarshaler](), reflect.TypeFor[encoding.TextUnmarshaler](),
	}
)

// encodesItself reports whether t, or a pointer to it, has methods that msgpack uses.
func encodesItself(t reflect.Type) bool {
	if t.Kind() == reflect.Interface {
		return false
	}
	ptr := reflect.PointerTo(t)
	return slices.ContainsFunc(selfEncodeTypes[:], ptr.Implements)
}

// wireField is a field as msgpack encodes it.
type wireField struct {
	name   string
	typ    reflect.Type
	behind int64 // with the first field of an embedded pointer: the size of the pointer's target
}

// wireFields lists the fields of struct t in the order in which msgpack/v5 encodes them. The fields of an
// embedded struct replace it. depth stops the recursion on types that embed themselves.
func wireFields(t reflect.Type, depth int) []wireField {
	var list []wireField
	taken := map[string]bool{}
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("msgpack"), ",")
		if name == "-" || !f.IsExported() && !f.Anonymous {
			continue
		}
		if name == "" {
			name = f.Name
		}
		opts := strings.Split(options, ",")
		if f.Anonymous && !slices.Contains(opts, "noinline") && depth < MaxDepth {
			forced := slices.Contains(opts, "inline")
			if inner, ok := embedded(f.Type, taken, forced, depth); ok {
				for _, in := range inner {
					taken[in.name] = true
				}
				taken[name] = true
				list = append(list, inner...)
				continue
			}
		}
		list, taken[name] = append(list, wireField{name: name, typ: f.Type}), true
		for _, o := range opts {
			if alias, ok := strings.CutPrefix(o, "alias:"); ok {
				taken[alias] = true
			}
		}
	}
	return list
}

// embedded lists the promoted fields of an embedded t. It returns false if t counts as an ordinary field: t
// is not a struct, encodes itself, or would hide an earlier field.
func embedded(t reflect.Type, taken map[string]bool, forced bool, depth int) ([]wireField, bool) {
	behind := int64(0)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
		behind += rounded(int64(t.Size()))
	}
	if t.Kind() != reflect.Struct || t == timeType || encodesItself(t) && !forced {
		return nil, false
	}
	inner := wireFields(t, depth+1)
	hides := func(f wireField) bool { return taken[f.name] }
	if forced {
		inner = slices.DeleteFunc(inner, hides)
	} else if slices.ContainsFunc(inner, hides) {
		return nil, false
	}
	if len(inner) > 0 {
		inner[0].behind += behind
	}
	return inner, true
}
