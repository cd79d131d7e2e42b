proc f {n} {expr {$n<2?1:$n*[f [expr {$n-1}]]}}
puts [f 30]
puts [lsort -integer {5 3 9 1}]
puts [regexp -inline {(\d+)-(\d+)} "12-34"]
