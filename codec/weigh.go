package codec

import (
	"math/bits"
	"reflect"
	"unsafe"
)

// Weigher returns a function that estimates how many bytes of memory a value refers to, not counting V
// itself: what Go's allocator uses for its strings, slices, maps, pointers and the contents of interfaces. A
// part that is shared within a value counts each time. The function is safe for concurrent use. It takes
// about as long as a walk over the value. For types that refer to nothing it returns 0 at once.
func Weigher[V any]() func(V) int64 {
	t := reflect.TypeFor[V]()
	if isFlat(t) {
		return func(V) int64 { return 0 }
	}
	switch {
	case t.Kind() == reflect.String: // no reflection: that would move the value to the heap
		return func(v V) int64 { return heapOf(int64(len(*(*string)(unsafe.Pointer(&v))))) }
	case t.Kind() == reflect.Slice && isFlat(t.Elem()):
		size := int64(t.Elem().Size())
		return func(v V) int64 { return heapOf(int64(cap(*(*[]struct{})(unsafe.Pointer(&v)))) * size) }
	}
	all := &shapes{}
	return func(v V) int64 {
		w := weighing{shapes: all}
		return w.behind(reflect.ValueOf(&v).Elem(), 0)
	}
}

// weighing is the state of one walk. The value may never have been encoded and may contain itself, so the
// walk ends after maxSteps.
type weighing struct {
	shapes *shapes
	steps  int
}

// behind returns the number of bytes that v refers to.
func (w *weighing) behind(v reflect.Value, hops int) (n int64) {
	s := w.shapes.get(v.Type())
	if w.steps++; s.flat || w.steps > maxSteps || hops > maxHops {
		return 0
	}
	switch s.kind {
	case reflect.String:
		return heapOf(int64(v.Len()))
	case reflect.Pointer:
		if !v.IsNil() {
			n = heapOf(int64(v.Type().Elem().Size())) + w.behind(v.Elem(), hops+1)
		}
	case reflect.Interface:
		if v.IsNil() {
			return 0
		}
		e := v.Elem()
		if k := e.Kind(); k != reflect.Pointer && k != reflect.Map && k != reflect.Chan && k != reflect.Func {
			n = heapOf(int64(e.Type().Size()))
		}
		n += w.behind(e, hops+1)
	case reflect.Slice:
		if v.IsNil() {
			return 0
		}
		n = heapOf(int64(v.Cap()) * int64(v.Type().Elem().Size()))
		n += w.each(v, hops)
	case reflect.Array:
		n = w.each(v, hops)
	case reflect.Map:
		if v.IsNil() {
			return 0
		}
		t := v.Type()
		n = mapHeap(int64(t.Key().Size()), int64(t.Elem().Size()), int64(v.Len()))
		if w.shapes.get(t.Key()).flat && w.shapes.get(t.Elem()).flat {
			return n
		}
		for it := v.MapRange(); it.Next(); {
			n += w.behind(it.Key(), hops+1) + w.behind(it.Value(), hops+1)
		}
	case reflect.Struct:
		for _, i := range s.all {
			n += w.behind(v.Field(i), hops+1)
		}
	}
	return n
}

func (w *weighing) each(v reflect.Value, hops int) (n int64) {
	if w.shapes.get(v.Type().Elem()).flat {
		return 0
	}
	for i := range v.Len() {
		n += w.behind(v.Index(i), hops+1)
	}
	return n
}

// heapOf estimates the bytes that the allocator uses for n: size classes are some 1/8 apart, and pages are 8
// KiB.
func heapOf(n int64) int64 {
	const page = 8 << 10
	switch {
	case n <= 0:
		return 0
	case n <= 8:
		return 8
	case n > 4*page:
		return (n + page - 1) / page * page
	}
	step := int64(16)
	if n > 128 {
		step = max(int64(1)<<(bits.Len64(uint64(n-1))-4), 16)
	}
	return (n + step - 1) / step * step
}

// mapHeap estimates the size of a map of n entries: groups of eight slots, in tables that double when they
// are 7/8 full.
func mapHeap(key, elem, n int64) int64 {
	slot, behind := int64(0), int64(0)
	for _, s := range []int64{key, elem} {
		if s > mapInline {
			slot, behind = slot+wordSize, behind+heapOf(s)
			continue
		}
		slot += (s + wordSize - 1) / wordSize * wordSize
	}
	switch {
	case n == 0:
		return mapBase
	case n <= mapGroup:
		return mapBase + heapOf(mapGroup*(slot+1)) + n*behind
	}
	slots := int64(1) << bits.Len64(uint64(n*8/7))
	return 2*mapBase + heapOf(slots*(slot+1)) + n*behind
}
