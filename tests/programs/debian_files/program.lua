local t={} for i=1,50 do t[i]=(i*7919)%101 end table.sort(t) print(table.concat(t,","))
print(string.format("%.14g %d %s",math.pi,1<<40,("x"):rep(5))) print(pcall(error,"bad"))
