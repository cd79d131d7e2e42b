let rec f n = if n < 2 then n else f (n-1) + f (n-2);;
print_string (String.concat "," (List.map string_of_int (List.init 15 f)));;
print_newline ();;
