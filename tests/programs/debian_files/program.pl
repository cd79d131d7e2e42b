my %n; while(<>){chomp;$n{$_}++ for split //} print join(' ',map {"$_$n{$_}"} sort keys %n),"\n";
printf "%.10f %s\n", sqrt(2), scalar reverse 'abc'; local $@; eval {die {code=>7}}; print $@->{code},"\n";
