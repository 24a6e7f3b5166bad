module small.invalid

go 1.26.0
