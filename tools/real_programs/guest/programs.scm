; A mix of what Scheme programs do: recursion, lists, closures, strings, and an interpreter in the interpreter.
(define (tak x y z) (if (not (< y x)) z (tak (tak (- x 1) y z) (tak (- y 1) z x) (tak (- z 1) x y))))

(define (range from to) (if (>= from to) '() (cons from (range (+ from 1) to))))

(define (safe? row distance placed)
  (or (null? placed)
      (and (not (= (car placed) (+ row distance)))
           (not (= (car placed) (- row distance)))
           (not (= (car placed) row))
           (safe? row (+ distance 1) (cdr placed)))))

(define (queens size)
  (define (place left placed)
    (if (= left 0)
        1
        (let loop ((row 0) (found 0))
          (if (= row size)
              found
              (loop (+ row 1)
                    (if (safe? row 1 placed) (+ found (place (- left 1) (cons row placed))) found))))))
  (place size '()))

(define (merge-sort items less?)
  (define (merge a b)
    (cond ((null? a) b)
          ((null? b) a)
          ((less? (car a) (car b)) (cons (car a) (merge (cdr a) b)))
          (else (cons (car b) (merge a (cdr b))))))
  (define (split items a b)
    (if (null? items) (merge (merge-sort a less?) (merge-sort b less?)) (split (cdr items) b (cons (car items) a))))
  (if (or (null? items) (null? (cdr items))) items (split items '() '())))

(define (random-list count seed)
  (if (= count 0) '() (cons seed (random-list (- count 1) (modulo (+ (* seed 421) 1663) 7875)))))

(define (evaluate form names)
  (cond ((symbol? form) (cdr (assq form names)))
        ((not (pair? form)) form)
        ((eq? (car form) 'if) (if (evaluate (cadr form) names) (evaluate (caddr form) names) (evaluate (cadddr form) names)))
        ((eq? (car form) 'lambda)
         (lambda values (evaluate (caddr form) (append (map cons (cadr form) values) names))))
        (else (apply (evaluate (car form) names) (map (lambda (each) (evaluate each names)) (cdr form))))))

(define fibonacci
  (evaluate '((lambda (f) (lambda (n) (f f n)))
              (lambda (f n) (if (< n 2) n (+ (f f (- n 1)) (f f (- n 2))))))
            (list (cons '< <) (cons '+ +) (cons '- -))))

(define (show name value) (display name) (display " ") (write value) (newline))
(show "tak" (tak 10 6 2))
(show "queens" (queens 6))
(show "sorted" (list-tail (merge-sort (random-list 400 7) <) 395))
(show "fibonacci" (fibonacci 10))
